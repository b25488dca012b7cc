"""The slate policy. Nothing here imports torch; `ppo` and `finetune` do."""
