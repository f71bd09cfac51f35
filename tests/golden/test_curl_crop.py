"""The random crop against CURL's public code, and which places it draws."""

import numpy as np
import pytest
import torch
from load import cases, load_case

from visrep.augment.crop import Crop


@pytest.mark.parametrize("case", cases("curl_random_crop"))
def test_against_public_code(case: str) -> None:
    c = load_case("curl_random_crop", case)
    images, crop = torch.from_numpy(c["in"]["image"]), Crop(int(c["meta"]["output_size"]))
    top, left = (torch.from_numpy(np.asarray(c["rand"][name])) for name in ("first", "second"))
    assert torch.equal(crop.apply(images, {"top": top, "left": left}), torch.from_numpy(c["out"]["cropped"]))
    drawn = crop.draw(1000, images.shape[-2:], torch.Generator().manual_seed(0), torch.device("cpu"))
    for theirs, ours in ((top, drawn["top"]), (left, drawn["left"])):
        assert theirs.max() < int(c["meta"]["high"]) == ours.max(), "ours draws the place that CURL's code leaves out"


def test_the_last_place_is_drawn_as_often_as_the_others() -> None:
    draws = Crop(12).draw(5000, (16, 14), torch.Generator().manual_seed(0), torch.device("cpu"))
    for name, places in (("top", 5), ("left", 3)):
        counts = torch.bincount(draws[name], minlength=places)
        assert len(counts) == places and (counts - 5000 / places).abs().max() < 250
