# Written by tools/generate.py from the files of this folder.
from .._rule import Rule
from .adabelief import AdaBelief
from .adadelta import Adadelta
from .adagrad import Adagrad
from .adam import Adam
from .adamax import Adamax
from .adamw import AdamW
from .adan import Adan
from .ademamix import AdEMAMix
from .adopt import ADOPT
from .asgd import ASGD
from .laprop import LaProp
from .lion import Lion
from .nadam import NAdam
from .radam import RAdam
from .rmsprop import RMSprop
from .rprop import Rprop
from .sgd import SGD
from .signsgd import SignSGD
from .yogi import Yogi

ALL: tuple[type[Rule], ...] = (
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    AdEMAMix,
    ADOPT,
    ASGD,
    LaProp,
    Lion,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    SGD,
    SignSGD,
    Yogi,
)
