"""One plot a file: tables in, matplotlib axes out."""
