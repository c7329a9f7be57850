"""What is compiled, where compiled code is kept, what is refused, and which clock stands still meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from eclip.compilation import (
    compile_model,
    require_compiler,
    time_without_compilation,
    transformer_blocks,
    use_cache,
)
from eclip.config import ConfigError
from eclip.models.eclip import Projection
from eclip.models.transformer import Transformer


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is put back afterwards."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")


def encoders() -> nn.ModuleDict:
    vit = timm.models.VisionTransformer(img_size=32, patch_size=16, embed_dim=16, depth=3, num_heads=2)
    return nn.ModuleDict({"image": vit, "text": Transformer(16, 2, 2, 0.0), "head": Projection(16, dim=8)})


def test_the_blocks_of_both_kinds_of_encoders_are_found_and_nothing_else() -> None:
    model = encoders()
    blocks = [*model.get_submodule("image.blocks").children(), *model.get_submodule("text.blocks").children()]
    assert transformer_blocks(model) == blocks
    assert len(blocks) == 3 + 2


@pytest.mark.parametrize(("gpu", "compiled"), [(True, {"image", "text"}), (False, {"image"})])
def test_on_a_cpu_the_image_encoder_alone_is_compiled(
    gpu: bool, compiled: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.setenv(variable, "true")
    model = encoders()
    compile_model(model, None, gpu)
    found = {name for name, part in model.named_modules() if part._compiled_call_impl is not None}
    assert {name.partition(".")[0] for name in found} == compiled


def test_a_folder_of_compiled_code_is_made_and_used_itself(cache: None, tmp_path: Path) -> None:
    use_cache(tmp_path / "made" / "here")
    assert (tmp_path / "made" / "here").is_dir()
    assert torch._inductor.runtime.cache_dir_utils.cache_dir() == str(tmp_path / "made" / "here")


def test_a_file_is_no_folder_of_compiled_code(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"trainer.compile_cache=.*file: expected a folder"):
        use_cache(tmp_path / "file")


@pytest.mark.parametrize(("gpu", "variable"), [(False, "CXX"), (True, "CC")])
def test_without_a_compiler_it_says_what_to_install(
    gpu: bool, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "absent-compiler")
    message = (
        rf"trainer.compile=true: there is no compiler absent-compiler .*apt-get install g\+\+.*{variable}"
    )
    with pytest.raises(ConfigError, match=message):
        require_compiler(gpu)


def test_without_python_headers_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no .*Python.h \(apt-get install python3-dev\)"):
        require_compiler(gpu=False)


def test_compilation_is_not_charged_to_the_budget() -> None:
    def compiled(function) -> None:
        torch.compile(function, backend="aot_eager")(torch.ones(7, requires_grad=True))

    compiled(lambda x: x.sin().sum())  # imports what compiling needs
    wall, counted = time.perf_counter(), time_without_compilation()
    compiled(lambda x: (x.sin() + x.cos()).sum())
    wall, counted = time.perf_counter() - wall, time_without_compilation() - counted
    assert 0 <= counted < 0.5 * wall
