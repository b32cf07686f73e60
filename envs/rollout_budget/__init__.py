"""Rollout budgets: divide tries over prompts in reinforcement learning of language models."""
