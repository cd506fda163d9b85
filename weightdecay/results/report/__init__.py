"""The report: a result as one HTML page."""
