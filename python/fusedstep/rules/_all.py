# Written by tools/generate.py from the files of this folder.
from .._rule import Rule
from .adadelta import Adadelta
from .adagrad import Adagrad
from .adam import Adam
from .adamax import Adamax
from .adamw import AdamW
from .asgd import ASGD
from .lion import Lion
from .nadam import NAdam
from .radam import RAdam
from .rmsprop import RMSprop
from .rprop import Rprop
from .sgd import SGD

ALL: tuple[type[Rule], ...] = (
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    ASGD,
    Lion,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    SGD,
)
