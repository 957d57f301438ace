import torch

from kdcompress.maths.randomness import generator


def draw(seed: int, purpose: str) -> float:
    return torch.rand(1, generator=generator(seed, purpose)).item()


def test_seed_and_purpose_fix_every_draw() -> None:
    assert draw(0, "noise") == draw(0, "noise")


def test_each_seed_and_each_purpose_has_draws_of_its_own() -> None:
    # Among them are pairs that a concatenation without a separator would confuse.
    purposes = ("noise", "order", "1/noise", "")
    assert len({draw(seed, purpose) for seed in (0, 1, 11, 2**40, -1) for purpose in purposes}) == 20


def test_draws_do_not_depend_on_the_shared_generator_nor_move_it() -> None:
    torch.manual_seed(5)
    here, state = draw(0, "noise"), torch.get_rng_state()
    torch.manual_seed(6)
    assert draw(0, "noise") == here
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_the_same_in_every_process() -> None:
    # sha256("0/noise"), unlike hash(), is not salted: held by value, since runs are reproduced by it.
    assert generator(0, "noise").initial_seed() == 0x8E53F176B2D058
