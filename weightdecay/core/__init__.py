"""What knows nothing of decay: types, trees, argument checks, text, files, statistics, random streams.

- A file here imports no other room. A file that does not compute with arrays does not import JAX, so that the command
  line starts fast.
- What is written in several rooms is written here once: `checks` has the validation of arguments and its errors,
  `text` turns numbers into text, `files` writes files atomically, `statistics` has means, standard errors and
  intervals, `tree` walks trees of weights, `jaxprs` walks programs.
- `metrics` is the one table of metrics, `random_streams` the one list of the random numbers of training.
- A function comes here when a second room needs it, not before.

.. include:: glossary.md
"""
