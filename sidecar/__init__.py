"""The metering sidecar: a proxy that decides, serves and writes down what is billed."""
