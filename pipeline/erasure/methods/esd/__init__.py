from pipeline.erasure.methods.esd.loss import compute_erasure_loss
from pipeline.erasure.methods.esd.method import ESD

__all__ = ["ESD", "compute_erasure_loss"]
