"""The command line, the comparison of regularizers, and the article; nobody imports these."""
