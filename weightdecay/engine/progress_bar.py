"""The progress bar of a run, with the time that is left."""

from typing import Any


def progress_bar(total: int, unit: str, *, shown: bool, done: int = 0) -> Any:
    """Return the progress bar of a run, for a terminal or a notebook.

    Args:
      total: Number of units of work in all.
      unit: Name of the unit, such as ``"member-steps"``.
      shown: Whether the bar is displayed.
      done: Number of units that earlier calls have completed.

    Returns:
      A tqdm bar; ``with`` closes it.
    """
    from tqdm import tqdm

    counted = f"{{n_fmt}}/{{total_fmt}} {unit}, {{elapsed}} elapsed, {{remaining}} left"
    shape = f"{{desc}} {{percentage:3.0f}}% |{{bar:30}}| {counted}"
    return tqdm(total=total, initial=done, disable=not shown, desc="training", unit_scale=True, bar_format=shape)
