"""Settings and policies of operators: read, validated as a whole and compiled. Every fault names its file and line."""
