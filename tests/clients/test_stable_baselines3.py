"""stable-baselines3: each algorithm's optimizer by policy_kwargs, its clipping, saved models."""

from __future__ import annotations

import pytest
import torch

import fusedstep.torch
from tests.helpers.clients import assert_same, need, training

sb3 = need("stable_baselines3")

ours, theirs = fusedstep.torch, torch.optim
TINY = {"seed": 0, "device": "cpu"}
ALGORITHMS = {
    "PPO": ("CartPole-v1", "Adam", {"eps": 1e-5}, {"n_steps": 64, "batch_size": 32, "n_epochs": 2}, 128),
    "A2C": ("CartPole-v1", "RMSprop", {"alpha": 0.99, "eps": 1e-5}, {"n_steps": 8}, 64),
    "DQN": ("CartPole-v1", "AdamW", {}, {"learning_starts": 16, "batch_size": 16}, 64),
    "SAC": ("Pendulum-v1", "Adam", {}, {"learning_starts": 16, "batch_size": 16}, 32),
}


def model_of(library, algorithm, more=(), **options):
    env, name, own, small, _ = ALGORITHMS[algorithm]
    policy = {"optimizer_class": getattr(library, name), "optimizer_kwargs": {**own, **dict(more)}, "net_arch": [16]}
    return getattr(sb3, algorithm)("MlpPolicy", env, policy_kwargs=policy, **small, **TINY, **options)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_as_torch(algorithm):
    runs = []
    for library in (ours, theirs):
        model = model_of(library, algorithm).learn(ALGORITHMS[algorithm][-1])
        if algorithm == "SAC":
            runs.append([training(model.actor, model.actor.optimizer), training(model.critic, model.critic.optimizer)])
        else:
            runs.append([training(model.policy, model.policy.optimizer)])
    for one, other in zip(*runs, strict=True):
        assert isinstance(one.optimizer, fusedstep.torch.FusedOptimizer)
        assert_same(one, other)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_clipping_in_the_step(algorithm):
    """It needs the algorithm's own set to infinity, which clips nothing."""
    steps = ALGORITHMS[algorithm][-1]
    one = model_of(ours, algorithm, {"max_norm": 0.1}, max_grad_norm=float("inf")).learn(steps)
    other = model_of(theirs, algorithm, max_grad_norm=0.1).learn(steps)
    assert_same(*(training(model.policy, model.policy.optimizer) for model in (one, other)))
    assert one.policy.optimizer.clipped_steps > 0


def test_saved_model_goes_on_with_its_state(tmp_path):
    results = []
    for library in (ours, theirs):
        model = model_of(library, "PPO").learn(128)
        model.save(tmp_path / library.__name__)
        loaded = sb3.PPO.load(tmp_path / library.__name__, env=model.get_env(), device="cpu")
        assert type(loaded.policy.optimizer) is type(model.policy.optimizer)
        assert_same(training(loaded.policy, loaded.policy.optimizer), training(model.policy, model.policy.optimizer))
        loaded.learn(128, reset_num_timesteps=False)
        results.append(training(loaded.policy, loaded.policy.optimizer))
    assert_same(*results)
