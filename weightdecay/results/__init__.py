"""Results: what a grid gives back, from the table of candidates to the report.

- `grid_result.GridResult` is what users see; its parts are in files of their own, which work on plain tables,
  datasets and candidates: `dataset` (builds the xarray dataset), `tables`, `candidates`, `selection` (which candidate
  to take) and `selected` (what is known of it), `edges` (whether the grid was wide enough), `held_out` (test scores),
  `extension` (train more, and join), `plot_methods`, `report`, and `trackers` (MLflow, Weights & Biases, TensorBoard,
  Optuna).
- `suggestion` (coefficients from a run without decay, by its `turn` and the `calibration`) and `transfer` (to another
  run, also by a `power_law`) say what a coefficient may be where no grid was trained.
- Seeds and folds are replicates of a candidate, never candidates. The choice uses validation data only; the test set is
  scored once.
- A number is shown with its standard error, and a difference with its interval. "Cannot tell" is an answer.
- A new plot is one method in `plot_methods`; a new section of the report is one method in `report.content`.

.. include:: reading_a_result.md
"""
