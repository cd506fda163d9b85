"""One member: its task, step, loss, evaluation and diagnostics."""
