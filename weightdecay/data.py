"""Data sets under one name: ``wd.data``.

`Data` is what is trained on; `split` and `folds` make it of arrays, which the readers take from files and `arrays` from
other libraries; the data sets of scikit-learn and the synthetic ones need no download.
"""

from collections.abc import Callable

from weightdecay.builtin import breast_cancer as breast_cancer
from weightdecay.builtin import diabetes as diabetes
from weightdecay.builtin import digits as digits
from weightdecay.builtin import wine as wine
from weightdecay.encoding import one_hot as one_hot
from weightdecay.examples import Data as Data
from weightdecay.examples import Scaling as Scaling
from weightdecay.examples import check as check
from weightdecay.readers import read_csv as read_csv
from weightdecay.readers import read_idx as read_idx
from weightdecay.readers import read_npz as read_npz
from weightdecay.sources import arrays as arrays
from weightdecay.splits import class_weights as class_weights
from weightdecay.splits import folds as folds
from weightdecay.splits import split as split
from weightdecay.synthetic import clusters as clusters
from weightdecay.synthetic import spirals as spirals
from weightdecay.synthetic import teacher_student as teacher_student
from weightdecay.synthetic import token_order as token_order
from weightdecay.synthetic import with_irrelevant_features as with_irrelevant_features

BUILT_IN: dict[str, Callable[..., Data]] = {
    fn.__name__: fn for fn in (digits, breast_cancer, wine, diabetes, clusters, spirals)
}
"""Data sets that need no file, by name: inputs real, made with ``seed``, ``num_train`` and the sizes of the splits."""
