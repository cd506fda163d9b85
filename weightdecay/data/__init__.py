"""Data sets under one name: ``wd.data``.

`Data` is what is trained on; `split` and `folds` make it of arrays, which the readers take from files and `arrays` from
other libraries; the data sets of scikit-learn and the synthetic ones need no download.

.. include:: your_own_data.md
"""

from collections.abc import Callable

from weightdecay.data.builtin import breast_cancer as breast_cancer
from weightdecay.data.builtin import diabetes as diabetes
from weightdecay.data.builtin import digits as digits
from weightdecay.data.builtin import wine as wine
from weightdecay.data.dataset import Data as Data
from weightdecay.data.dataset import Scaling as Scaling
from weightdecay.data.dataset import check as check
from weightdecay.data.encoding import one_hot as one_hot
from weightdecay.data.files import read_csv as read_csv
from weightdecay.data.files import read_idx as read_idx
from weightdecay.data.files import read_npz as read_npz
from weightdecay.data.sources import arrays as arrays
from weightdecay.data.splits import class_weights as class_weights
from weightdecay.data.splits import folds as folds
from weightdecay.data.splits import split as split
from weightdecay.data.synthetic import clusters as clusters
from weightdecay.data.synthetic import spirals as spirals
from weightdecay.data.synthetic import teacher_student as teacher_student
from weightdecay.data.synthetic import token_order as token_order
from weightdecay.data.synthetic import with_irrelevant_features as with_irrelevant_features

BUILT_IN: dict[str, Callable[..., Data]] = {
    fn.__name__: fn for fn in (digits, breast_cancer, wine, diabetes, clusters, spirals)
}
"""Data sets that need no file, by name: inputs real, made with ``seed``, ``num_train`` and the sizes of the splits."""
