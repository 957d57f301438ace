import json
import warnings

import pytest
import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from kdcompress.errors import CheckpointError, UsageError
from kdcompress.models.arguments import parse_arguments
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.small_images import total_stride
from kdcompress.models.students import build_student, create_student, load_starting_weights

SMALL_RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
SMALL_VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}
SMALL_SWIN = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
SMALL_CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)}


def student(arch="resnet18", args=SMALL_RESNET, size=(3, 32, 32), classes=10, stride=None):
    return create_student(
        arch,
        args,
        classes=[f"class {k}" for k in range(classes)],
        input_size=size,
        total_stride=stride,
        mean=[0.5] * size[0],
        std=[0.25] * size[0],
    )


def reloaded(record: ModelRecord) -> ModelRecord:
    return ModelRecord.model_validate_json(record.model_dump_json())


def test_the_command_lines_small_resnet_works_on_one_channel_images_of_16_pixels():
    args = parse_arguments(["layers=1,1,1,1", "channels=8,16,24,32"], "--student-arg")
    model, record = student("resnet18", args, (1, 16, 16), classes=10)
    assert isinstance(model, NormalisedModel)
    assert model(torch.rand(2, 1, 16, 16)).shape == (2, 10)
    assert model.network.forward_features(torch.rand(1, 1, 16, 16)).shape == (1, 32, 4, 4)
    assert {change.module: change.action for change in record.changes} == {
        "conv1": "stride 1",
        "maxpool": "removed",
        "layer2.0.conv1": "stride 1",
        "layer2.0.downsample.0": "stride 1",
    }


@pytest.mark.parametrize(
    ("arch", "args", "side", "stride"),
    [
        ("resnet18", SMALL_RESNET, 8, 2),
        ("resnet18", SMALL_RESNET, 28, 4),
        ("resnet18", SMALL_RESNET, 32, 8),
        ("resnet18", SMALL_RESNET, 64, 16),
        ("resnet18", SMALL_RESNET, 224, 32),
        ("resnet18d", SMALL_RESNET, 32, 8),  # AvgPool2d(2, 2) in its shortcuts
        ("convnext_atto", SMALL_CONVNEXT, 32, 8),  # 4x4 patches, kernels without padding
        ("convnext_atto", SMALL_CONVNEXT, 16, 4),
        ("vit_tiny_patch16_224", SMALL_VIT, 32, 4),  # 8x8 tokens
        ("vit_tiny_patch16_224", SMALL_VIT, 16, 2),
        ("swin_tiny_patch4_window7_224", SMALL_SWIN, 32, 8),  # 4x4 in the last stage
    ],
)
def test_the_default_total_stride_suits_the_image(arch, args, side, stride):
    model, _ = student(arch, args, (3, side, side))
    assert total_stride(model.network, (3, side, side)) == stride


@pytest.mark.parametrize("stride", [1, 2, 4, 16, 32])
def test_a_total_stride_that_was_asked_for_is_kept(stride):
    model, _ = student(stride=stride)
    assert model.eval().network.forward_features(torch.rand(1, 3, 32, 32)).shape[-1] == 32 // stride


def test_stride_surgery_leaves_names_shapes_and_number_of_weights_alone():
    model, _ = student(stride=1)
    plain = timm.create_model("resnet18", num_classes=10, **SMALL_RESNET)
    expected = {key: value.shape for key, value in plain.state_dict().items()}
    assert {key: value.shape for key, value in model.network.state_dict().items()} == expected


def test_images_of_the_networks_own_size_change_nothing():
    _, record = student("vit_tiny_patch16_224", SMALL_VIT, (3, 224, 224))
    assert record.changes == () and "img_size" not in record.args and "patch_size" not in record.args


def test_arguments_of_the_user_are_not_overruled():
    _, record = student("vit_tiny_patch16_224", {**SMALL_VIT, "patch_size": 8}, (3, 32, 32))
    assert record.args["patch_size"] == 8 and record.args["img_size"] == 32


@pytest.mark.parametrize(
    ("arch", "args", "size"),
    [
        ("resnet18", SMALL_RESNET, (1, 16, 16)),
        ("convnext_atto", SMALL_CONVNEXT, (3, 32, 32)),
        ("vit_tiny_patch16_224", SMALL_VIT, (3, 32, 32)),
        ("resnet18", SMALL_RESNET, (3, 32, 48)),
        ("vit_tiny_patch16_224", SMALL_VIT, (3, 32, 48)),
    ],
)
def test_the_record_alone_rebuilds_the_network_with_identical_behaviour(arch, args, size):
    model, record = student(arch, args, size)
    again = reloaded(record)
    assert again == record
    network = build_student(again)
    network.load_state_dict(model.network.state_dict())
    inputs = torch.rand(2, *size)
    assert torch.equal(network.eval()(inputs), model.network.eval()(inputs))


def test_under_one_seed_the_student_and_its_rebuild_have_the_same_weights():
    torch.manual_seed(3)
    model, record = student()
    torch.manual_seed(3)
    rebuilt = build_student(record)
    own = model.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in rebuilt.state_dict().items())


def test_fresh_students_have_clean_statistics_and_no_gradients():
    model, _ = student()
    fresh = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.num_batches_tracked == 0 for m in fresh) and fresh
    assert all(p.grad is None for p in model.parameters())


def test_a_students_step_raises_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, _ = student("convnext_atto", SMALL_CONVNEXT, (3, 16, 16))
        model(torch.rand(2, 3, 16, 16)).sum().backward()


@pytest.mark.parametrize("arch", ["resnet81", "resnet181"])
def test_an_unknown_name_ends_with_the_nearest_names(arch):
    with pytest.raises(UsageError, match=rf"--student .* got {arch}; did you mean .*resnet18"):
        student(arch, {})


@pytest.mark.parametrize("arch", ["hf-hub:timm/resnet18", "local-dir:/tmp", "timm/hf-hub:x"])
def test_names_that_would_reach_for_a_hub_or_a_folder_are_refused(arch):
    with pytest.raises(UsageError, match="--student must be the name of a timm model"):
        student(arch, {})


@pytest.mark.parametrize("arch", ["timm/resnet18", "timm:resnet18"])
def test_a_leading_timm_is_dropped(arch):
    assert student(arch)[1].arch == "resnet18"


def test_a_wrong_argument_is_named_with_those_that_are_accepted():
    with pytest.raises(UsageError, match=r"--student-arg layer is no argument of resnet18; did you mean layers.*block"):
        student("resnet18", {"layer": (1, 1, 1, 1)})


def test_a_value_that_the_network_cannot_use_is_named():
    with pytest.raises(UsageError, match="--student resnet18 cannot be built with --student-arg layers=3"):
        student("resnet18", {"layers": 3})


@pytest.mark.parametrize("key", ["num_classes", "in_chans", "pretrained", "checkpoint_path", "pretrained_cfg"])
def test_arguments_that_follow_from_the_data_or_load_files_are_refused(key):
    with pytest.raises(UsageError, match=f"--student-arg {key} cannot be set"):
        student("resnet18", {key: 1})


@pytest.mark.parametrize(("stride", "told"), [(3, "power of two"), (0, "power of two"), (64, "at most 32")])
def test_an_impossible_stride_is_refused(stride, told):
    with pytest.raises(UsageError, match=f"--student-stride must be .*{told}.* got {stride}"):
        student(stride=stride)


def test_a_network_that_cannot_take_the_images_ends_in_one_line_with_the_options_that_could_help():
    with pytest.raises(UsageError, match=r"32x32 images with 3 channels.*\(64\).*--student-arg img_size") as caught:
        student("vit_tiny_patch16_224", {**SMALL_VIT, "img_size": 64, "patch_size": 16})
    assert "\n" not in str(caught.value)


def test_all_of_a_record_is_json():
    _, record = student("swin_tiny_patch4_window7_224", SMALL_SWIN)
    assert json.loads(record.model_dump_json())["args"]["depths"] == [1, 1, 1, 1]


def small_network(classes=10, channels=3) -> nn.Module:
    return timm.create_model("resnet18", num_classes=classes, in_chans=channels, **SMALL_RESNET)


def test_starting_weights_that_fit_are_all_loaded():
    source, target = small_network(), small_network()
    assert load_starting_weights(target, source.state_dict()) == []
    own = target.state_dict()
    assert all(torch.equal(own[key], value) for key, value in source.state_dict().items())


def test_a_different_classifier_and_stem_are_left_out_and_named():
    source, target = small_network(7, 1), small_network(10, 3)
    fresh = target.fc.weight.clone()
    assert sorted(load_starting_weights(target, source.state_dict())) == ["conv1.weight", "fc.bias", "fc.weight"]
    assert torch.equal(target.fc.weight, fresh)
    assert torch.equal(target.layer1[0].conv1.weight, source.layer1[0].conv1.weight)


def test_weights_without_a_classifier_are_a_starting_point():
    state = {key: value for key, value in small_network().state_dict().items() if not key.startswith("fc.")}
    assert load_starting_weights(small_network(), state) == ["fc.weight", "fc.bias"]


def test_weights_of_another_network_are_refused_and_nothing_is_loaded():
    target = small_network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    other = timm.create_model("resnet18", num_classes=10, layers=(1, 1, 1, 1), channels=(8, 16, 24, 40))
    with pytest.raises(CheckpointError, match=r"layer4.0.conv1.weight: expected \(32, 24, 3, 3\), found \(40, 24"):
        load_starting_weights(target, other.state_dict())
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_normalisation_is_that_of_the_record():
    model, record = create_student(
        "resnet18",
        SMALL_RESNET,
        classes=["a", "b"],
        input_size=(3, 16, 16),
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
    )
    assert record.mean == IMAGENET_DEFAULT_MEAN and record.std == IMAGENET_DEFAULT_STD
    inputs = torch.rand(2, 3, 16, 16)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    torch.testing.assert_close(model.eval()(inputs), model.network((inputs - mean) / std))
