"""Plots: one plot a file; tables and datasets in, matplotlib axes out.

- A plot function draws into the axes that it is given, or makes new ones, and returns them. It imports only `core`:
  what it needs of a result (the table, the chosen candidate, units) is passed in.
- Every axis has a label with its unit. Lines differ in marker and dashes as well as in colour, so that grey prints and
  colour-blind readers can tell them apart. The legend is above the axes, where it covers no data.
- `table_lines` turns a table of candidates into lines and maps; `style` has colours, ticks and legends; `axis_labels`
  has the labels. Two families share a file: `along_coefficient` (a quantity against the coefficient) and `layers` (a
  quantity of each layer).
- A new plot is one file here with one function, and one ``plot_...`` method in `weightdecay.results.plot_methods`.
"""
