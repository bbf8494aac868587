"""The place mask: sizes of any latents, what is gathered, and how it is read at other resolutions."""

import pytest
import torch

from pipeline.erasure.cease.mask import CELLS, PlaceMask, grid, grids, most_positions
from pipeline.models.switching import MARKS, attention_to

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(4, 64, 64), (8, 16, 16), (4, 96, 40), (4, 7, 9), (16, 128, 128)])
def test_the_grid_of_every_level_is_found_from_its_positions(shape):
    height, width = shape[1:]
    for _ in range(4):
        assert grid(height * width, shape) == (height, width)
        height, width = -(-height // 2), -(-width // 2)


def test_weights_are_there_for_every_level_in_the_dtype_of_the_strength():
    place = PlaceMask(2, (4, 7, 9), [0.5, 0.5], CPU, everywhere=[0, 1])
    place.nowhere()
    weights = place.weights(torch.tensor([2.0, 0.0], dtype=torch.bfloat16).view(2, 1, 1))
    assert list(weights) == [h * w for h, w in grids((4, 7, 9))] == [63, 20, 6, 2, 1]
    for positions, weight in weights.items():
        assert weight.shape == (2, positions, 1)
        assert weight.dtype == torch.bfloat16
        assert weight[0].eq(2).all()
        assert weight[1].eq(0).all()


@pytest.mark.parametrize("shape", [(4, 64, 64), (4, 16, 16), (4, 96, 160)])
def test_maps_are_gathered_on_a_grid_of_bounded_size(shape):
    place = PlaceMask(2, shape, [0.5, 0.5], CPU)
    assert place.size[0] * place.size[1] <= CELLS
    assert shape[1] % place.size[0] == 0


def looking(at: tuple[int, int], size: int = 8, tokens: int = 6) -> torch.Tensor:
    """A map ``(1, 1, N)`` of attention to token 2, to which one position listens, and all others to token 1."""
    key = torch.zeros(1, 2, tokens, 4)
    key[:, :, 1, 0] = key[:, :, 2, 1] = 20.0
    query = torch.zeros(1, 2, size, size, 4)
    query[..., 0] = 1.0
    query[:, :, at[0], at[1]] = torch.tensor([0.0, 1, 0, 0])
    marks = torch.tensor([0.0, 0, 1, 0, 0, 0])[None, None, :, None].expand(-1, -1, -1, MARKS)
    return attention_to(query.flatten(2, 3), key, marks)[None]


def test_the_mask_lies_where_the_tokens_are_listened_to_and_one_cell_round_it():
    place = PlaceMask(1, (4, 8, 8), [0.5], CPU)
    place.gather(looking((2, 5)))
    place.update()
    mask = place.at(64, torch.float32).view(8, 8)
    assert mask[2, 5] == 1
    assert mask[1:4, 4:7].min() > 0.3  # widened, then smoothed
    assert mask[5:].max() == 0
    assert mask[:, :3].max() == 0


def test_it_is_the_same_place_at_another_resolution():
    place = PlaceMask(1, (4, 16, 16), [0.5], CPU)
    place.gather(looking((2, 5)))  # an 8x8 layer
    place.update()
    fine, coarse = place.at(256, torch.float32).view(16, 16), place.at(16, torch.float32).view(4, 4)
    assert fine[4:6, 10:12].min() > 0.9
    assert coarse.argmax() == 1 * 4 + 2


def test_no_single_noisy_map_decides():
    place = PlaceMask(1, (4, 8, 8), [0.5], CPU)
    for at in ((2, 5), (2, 5), (2, 5), (6, 1)):
        place.gather(looking(at))
    place.update()
    mask = place.at(64, torch.float32).view(8, 8)
    assert mask[2, 5] == 1
    assert mask[6, 1] == 0


def test_a_map_without_contrast_is_no_reason_to_fail():
    place = PlaceMask(1, (4, 8, 8), [0.5], CPU)
    place.update()
    assert place.at(64, torch.float32).isfinite().all()


def test_each_row_has_its_own_threshold():
    place = PlaceMask(2, (4, 8, 8), [0.5, 0.05], CPU)
    place.gather(torch.arange(8.0).repeat(8).expand(1, 2, 64))  # more to the right
    place.update()
    assert [mask[0, 0].count_nonzero().item() for mask in place.mask] == [6, 8]  # 4 and 7 of 8, and 2 around them


@pytest.mark.parametrize("shape", [(4, 128, 128), (4, 160, 128), (4, 131, 97), (4, 192, 192)])
def test_the_coarsest_layers_of_sdxl_are_gathered_whatever_the_size(shape):
    height, width = -(-shape[1] // 4), -(-shape[2] // 4)
    assert height * width <= most_positions(shape) < 4 * height * width
    assert PlaceMask(1, shape, [0.5], CPU).size == (height, width)
