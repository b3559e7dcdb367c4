"""Every way in which a full device or host shows itself is out of memory; other errors of a device are not."""

from __future__ import annotations

import os

import pytest
import torch

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.process_memory import explain_out_of_memory, is_out_of_memory, use_expandable_segments

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ..."),
    getattr(torch, "AcceleratorError", RuntimeError)(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", 2
    ),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError("Unable to allocate 8.00 GiB for an array with shape (1073741824,) and data type float64"),
]
OTHERS = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("out of resource: shared memory, Required: 147456, Hardware limit: 101376"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_device_is_explained(error):
    assert is_out_of_memory(error)
    with (
        pytest.raises(PruningError, match="memory ran out while the model") as raised,
        explain_out_of_memory(),
    ):
        raise error
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_left_as_they_are(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), explain_out_of_memory():
        raise error


def test_expandable_segments_leave_a_configured_allocator_alone(monkeypatch):
    names = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}
    for given in names:
        monkeypatch.setattr(os, "environ", {given: "max_split_size_mb:64"})
        use_expandable_segments()
        assert os.environ == {given: "max_split_size_mb:64"}
    for version, name in (("2.9.1+cu128", "PYTORCH_CUDA_ALLOC_CONF"), ("2.13.0", "PYTORCH_ALLOC_CONF")):
        monkeypatch.setattr(os, "environ", {})
        monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
        use_expandable_segments()
        assert os.environ == {name: "expandable_segments:True"}
