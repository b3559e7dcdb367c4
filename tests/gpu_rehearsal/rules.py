"""CUDA's rules for the arguments of an operator: one device, kernels that exist, generators of the same device."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchgen
from torch import Tensor

from tests.gpu_rehearsal.counts import Current

aten = torch.ops.aten

# These may be given indices in host memory, which are copied.
_TAKES_HOST_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}

# What PyTorch picks on a CPU where it picks another kernel on CUDA.
_PICKED_ON_CPU = ("_scaled_dot_product_flash_attention_for_cpu", "mkldnn", "slow_conv")

# The sizes of the results, or the result itself, are known to the host only after the kernel has run.
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "bincount"}
# These check on the host whether a factorisation succeeded.
_WAITS_FOR_ERRORS = {"_linalg_check_errors", "cholesky_inverse"}

# Views, and what makes a tensor without a kernel.
NO_KERNEL = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "diagonal", "empty", "empty_like",
    "empty_strided", "expand", "is_same_size", "lift_fresh", "narrow", "new_empty", "new_empty_strided", "permute",
    "resize_", "select", "set_", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind",
    "unfold", "unsqueeze", "view", "view_as_complex", "view_as_real", "_local_scalar_dense", "_linalg_check_errors",
}  # fmt: skip

# Sums by atomic addition. `torch.use_deterministic_algorithms` gives the first another kernel, and refuses the others.
_ORDERED_IF_ASKED = {
    "index_add", "index_add_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_",
    "embedding_dense_backward", "index_put_accumulate", "_index_put_impl_accumulate",
    "_scaled_dot_product_flash_attention_for_cpu_backward", "_scaled_dot_product_flash_attention_backward",
    "_scaled_dot_product_efficient_attention_backward",
}  # fmt: skip
_NEVER_ORDERED = {"put_", "histc_float", "bincount_weighted", "cumsum_float", "kthvalue", "median_indices"}
# Of these two only the index varies, between equal values.
_SAME_VALUES = {"kthvalue", "median_indices"}
_ORDERED_IN_STRICT_MODE = {one for one in _ORDERED_IF_ASKED if "attention" in one}
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addmv", "dot"}

# Products of 16 bits with sums in float32, for which a CPU has no kernel.
FLOAT32_SUMS = {
    getattr(one, name) for one in (aten.mm, aten.addmm) for name in ("dtype", "dtype_out") if name in one.overloads()
}

# Dtypes with a kernel for hardly any operator.
_WITHOUT_KERNELS = {torch.uint16, torch.uint32, torch.uint64}


class PretendCudaError(RuntimeError):
    """What CUDA would raise."""


def float32_sums(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Do on a CPU what CUDA does for `mm` or `addmm` with an `out_dtype`.

    Raises:
        PretendCudaError: the factors are not of one dtype of 16 bits, or the sums not float32.
    """
    *added, left, right, out_dtype = args
    halves = (torch.float16, torch.bfloat16)
    if left.dtype != right.dtype or left.dtype not in halves or out_dtype != torch.float32:
        raise PretendCudaError(f"{func}: out_dtype must be fp32 for fp16 or bf16 inputs, not {out_dtype}")
    factors = left.float(), right.float()
    if not added:
        return torch.mm(*factors)
    out: Tensor = kwargs["out"]
    return out.copy_(torch.addmm(added[0], *factors)) if out is not added[0] else out.addmm_(*factors)


def check_same_device(name: str, places: Iterable[torch.device], hosted: Iterable[Tensor], indices: object) -> None:
    """Check that an operator meets one device, CPU scalars and CPU indices excepted.

    Args:
        name: the operator.
        places: devices of its tensors on a pretend device.
        hosted: its other tensors.
        indices: its second argument.

    Raises:
        PretendCudaError: it meets several.
    """
    found = sorted({str(place) for place in places})
    if len(found) > 1:
        raise PretendCudaError(f"{name}: expected all tensors to be on the same device, but found {found}")
    allowed = [id(one) for one in indices] if name in _TAKES_HOST_INDICES and isinstance(indices, list | tuple) else []
    for one in hosted:
        if id(one) in allowed:
            Current.counts.copied_bytes["to device"] += one.nbytes
            Current.counts.synchronisations["index from the host"] += 1
        elif one.ndim:
            raise PretendCudaError(f"{name}: expected all tensors to be on the same device, but found {found} and cpu")


def check_kernel(func: torch._ops.OpOverload, tensors: Iterable[Tensor]) -> None:
    """Check that CUDA has a kernel for an operator and the dtypes of its tensors.

    Raises:
        NotImplementedError: it has none.
    """
    name = func.overloadpacket.__name__
    if func.name().removeprefix("aten::") in _missing_kernels() and not name.startswith(_PICKED_ON_CPU):
        raise NotImplementedError(f"{func} is not implemented for CUDA")
    for one in tensors:
        if one.dtype in _WITHOUT_KERNELS and name not in NO_KERNEL | {"fill_", "clone", "eq", "ne"}:
            raise NotImplementedError(f"{name} is not implemented for {one.dtype} on CUDA")
        if one.dtype == torch.bool and name in ("kthvalue", "median", "topk"):
            raise NotImplementedError(f"{name} is not implemented for bool on CUDA")


def check_generators(values: Iterable[object], wanted: str) -> None:
    """Check that every generator among the arguments of an operator is of its device.

    Raises:
        PretendCudaError: one is not.
    """
    for one in values:
        if isinstance(one, torch._C.Generator) and one.device.type != wanted:
            raise PretendCudaError(f"expected a {wanted} generator, but found one of {one.device.type}")


def check_order(name: str, arguments: tuple[object, ...]) -> None:
    """Count a sum whose order varies on CUDA, unless deterministic algorithms are on.

    Raises:
        PretendCudaError: they are on and CUDA has none for this operator, or cuBLAS is not set up for them.
    """
    first = arguments[0] if arguments else None
    is_float = isinstance(first, Tensor) and first.is_floating_point()
    if name in ("cumsum", "histc") and is_float:
        name += "_float"
    elif name in ("index_put_", "_index_put_impl_") and is_float and len(arguments) > 3 and arguments[3]:
        name = name.rstrip("_") + "_accumulate"
    elif name == "bincount" and len(arguments) > 1 and arguments[1] is not None:
        name = "bincount_weighted"
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict and name in _PRODUCTS and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (":4096:8", ":16:8"):
        raise PretendCudaError("deterministic algorithms need CUBLAS_WORKSPACE_CONFIG=:4096:8 or :16:8")
    if strict and name in _NEVER_ORDERED:
        raise PretendCudaError(f"{name} does not have a deterministic implementation on CUDA")
    asked = strict or (torch.are_deterministic_algorithms_enabled() and name not in _ORDERED_IN_STRICT_MODE)
    if (name in _ORDERED_IF_ASKED and is_float and not asked) or name in _NEVER_ORDERED - _SAME_VALUES:
        Current.counts.unordered[name] += 1


def check_precision(name: str, tensors: Iterable[Tensor]) -> None:
    """Count a product of float32 matrices unless it is computed in float32."""
    if name in _PRODUCTS and torch.get_float32_matmul_precision() != "highest":
        Current.counts.reduced[name] += any(one.dtype == torch.float32 for one in tensors)


def why_host_waits(name: str, arguments: tuple[object, ...]) -> str | None:
    """Return why the host waits for an operator, or None."""
    if name in _WAITS | _WAITS_FOR_ERRORS:
        return name
    if name == "repeat_interleave" and len(arguments) < 3:
        return name
    if name in _TAKES_HOST_INDICES and isinstance(arguments[1], list | tuple):
        masks = [one for one in arguments[1] if isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8)]
        return "index by a mask" if masks else None
    return None


@cache
def _missing_kernels() -> frozenset[str]:
    """Return the operators that PyTorch registers for CPUs and not for CUDA, from the table that it is built from."""
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    missing = []
    for entry in re.split(r"(?m)^- func: ", table.read_text(encoding="utf-8"))[1:]:
        registered = re.search(r"(?m)^  dispatch:\n((?:    .*\n)+)", entry)
        if registered is None or "structured_delegate" in entry:
            continue
        keys = set(re.split(r"[,\s]+", " ".join(line.partition(":")[0] for line in registered[1].splitlines())))
        if "CPU" in keys and "CUDA" not in keys and not any(key.startswith("Composite") for key in keys):
            missing.append(entry.partition("(")[0])
    return frozenset(missing)
