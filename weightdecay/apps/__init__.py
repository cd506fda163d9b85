"""Programs on top of the library: command line, estimators of scikit-learn, comparison of regularizers, an article.

- No other room imports this one.
- `cli` holds the commands and nothing else: `cli_arguments` turns strings into models, data and grids, and `cli_output`
  formats what is printed. `cli_data` and `cli_model` load the user's file and network, `cli_config` reads and writes
  files of options, and `cli_folder` keeps the folder of a run. A new command is one function in `cli`.
- A message about a wrong option comes from a `weightdecay.core.checks.ArgumentError`; the command line finds the option
  by the error's ``argument``.
- `comparison` ranks regularizers that have the same number of trials. `article_protocol`, `article_settings`,
  `article_tables` and `article` test what a popular article claims; `claims` holds the rules of the verdicts, and
  `step_times` measures the parts of a training step. A new table is one function in `article_tables` and one entry in
  its ``TABLES``. `reference` builds these pages.
- `estimators` are what users of scikit-learn call; `base_estimator` is what they share, `cross_validation` trains the
  members of all splits and chooses, and `forward_pass` is what a fitted estimator keeps.

.. include:: command_line.md
.. include:: estimators.md
.. include:: real_data.md
"""
