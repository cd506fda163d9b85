"""Data sets, under the name ``wd.data``: `Data`, and the functions that make it from arrays, files and other libraries.

- `Data` is what a run trains on. `split` and `folds` make it from arrays; `read_csv`, `read_idx` and `read_npz` read
  arrays from files, `arrays` from the data sets of other libraries. `tokens` makes windows of a stream of tokens.
- The data sets of scikit-learn and the synthetic ones need no download.
- Everything that is fitted (standardization) is fitted on training examples alone, in float64.
- Nothing here imports the library that a source comes from: a source is recognized by how it can be read.
- Files are read as if they were broken or malicious: an error names the file, and nothing in a file is executed.

A new built-in data set is one function with the decorator `weightdecay.data.registry.built_in`, in `builtin` or
`synthetic`; a new kind of file is a function in `files`; a new kind of source is a branch of `sources.arrays`; a new
augmentation is one entry of `augment.KINDS`.

.. include:: your_own_data.md
"""

from weightdecay.data.builtin import breast_cancer as breast_cancer
from weightdecay.data.builtin import diabetes as diabetes
from weightdecay.data.builtin import digits as digits
from weightdecay.data.builtin import wine as wine
from weightdecay.data.classes import class_weights as class_weights
from weightdecay.data.dataset import Data as Data
from weightdecay.data.dataset import Scaling as Scaling
from weightdecay.data.dataset import check as check
from weightdecay.data.encoding import one_hot as one_hot
from weightdecay.data.files import read_csv as read_csv
from weightdecay.data.files import read_idx as read_idx
from weightdecay.data.files import read_npz as read_npz
from weightdecay.data.registry import BUILT_IN as BUILT_IN
from weightdecay.data.sources import arrays as arrays
from weightdecay.data.splits import folds as folds
from weightdecay.data.splits import split as split
from weightdecay.data.synthetic import clusters as clusters
from weightdecay.data.synthetic import spirals as spirals
from weightdecay.data.synthetic import teacher_student as teacher_student
from weightdecay.data.synthetic import token_order as token_order
from weightdecay.data.synthetic import with_irrelevant_features as with_irrelevant_features
from weightdecay.data.tokens import tokens as tokens
