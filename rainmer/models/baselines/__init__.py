"""Other published derainers, one network per file."""

from rainmer.models.baselines.airnet import AirNet
from rainmer.models.baselines.brn import BRN, BRNConfig
from rainmer.models.baselines.drsformer import DRSformer, DRSformerConfig
from rainmer.models.baselines.efficientderain import EfficientDeRain
from rainmer.models.baselines.idt import IDT, IDTConfig
from rainmer.models.baselines.prenet import PReNet
from rainmer.models.baselines.promptir import PromptIR
from rainmer.models.baselines.rcdnet import RCDNet, RCDNetConfig

__all__ = [
    "BRN",
    "IDT",
    "AirNet",
    "BRNConfig",
    "DRSformer",
    "DRSformerConfig",
    "EfficientDeRain",
    "IDTConfig",
    "PReNet",
    "PromptIR",
    "RCDNet",
    "RCDNetConfig",
]
