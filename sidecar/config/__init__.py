"""What operators write: settings and policies, read, checked as a whole and compiled. Every fault names its place."""
