"""The slate policy. Nothing here imports torch; `ppo` and `finetune` do."""

from roiflow.policy.network import SlatePolicy, load

__all__ = ["SlatePolicy", "load"]
