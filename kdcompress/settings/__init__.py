"""The only home of defaults: frozen settings, checked once, saved with every result.

A field's name is its option's name (`iga_weight` is `--iga-weight`), and a message names the option as typed.
"""

from kdcompress.settings.base import Device, Eps, Fraction, NonNegative, Positive, Settings, in_words
from kdcompress.settings.certification import (
    CERTIFIED_IMAGES,
    KINDS,
    AuditSettings,
    CertifySettings,
    CleverSettings,
    Kind,
)
from kdcompress.settings.demo import DemoSettings
from kdcompress.settings.evaluation import CompareSettings, EvaluateSettings, EvaluationSettings
from kdcompress.settings.export import ExportSettings
from kdcompress.settings.gates import (
    PRESERVED_WITHIN,
    CertifiedDemand,
    CertifyGates,
    GateSettings,
    parse_certified_demand,
)
from kdcompress.settings.inputs import DataSettings, ModelFile, Statistics, ThreatSettings, refuse_norm
from kdcompress.settings.loss import RECIPES, LossSettings
from kdcompress.settings.run import OPTIMIZERS, RunSettings
from kdcompress.settings.training import (
    TRAIN_STEPS,
    BenchSettings,
    CacheSettings,
    DistillSettings,
    PlanSettings,
    PruneSettings,
    TeacherCheckSettings,
    TeachingSettings,
    TrainSettings,
)

__all__ = [
    "CERTIFIED_IMAGES",
    "KINDS",
    "OPTIMIZERS",
    "PRESERVED_WITHIN",
    "RECIPES",
    "TRAIN_STEPS",
    "AuditSettings",
    "BenchSettings",
    "CacheSettings",
    "CertifiedDemand",
    "CertifyGates",
    "CertifySettings",
    "CleverSettings",
    "CompareSettings",
    "DataSettings",
    "DemoSettings",
    "Device",
    "DistillSettings",
    "Eps",
    "EvaluateSettings",
    "EvaluationSettings",
    "ExportSettings",
    "Fraction",
    "GateSettings",
    "Kind",
    "LossSettings",
    "ModelFile",
    "NonNegative",
    "PlanSettings",
    "Positive",
    "PruneSettings",
    "RunSettings",
    "Settings",
    "Statistics",
    "TeacherCheckSettings",
    "TeachingSettings",
    "ThreatSettings",
    "TrainSettings",
    "in_words",
    "parse_certified_demand",
    "refuse_norm",
]
