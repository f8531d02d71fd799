"""Explicit mesh axes: outside, types say how an array is split over devices; inside, the compiler sees to it.

Rules reshape, gather and scatter at will, where JAX's explicit axes want to be told how each result is split. So what
comes from such a mesh is computed with automatic axes, and typed again on its way out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, get_abstract_mesh, reshard, use_abstract_mesh

from chainrule._errors import InputTypeError

if TYPE_CHECKING:
    from jax.sharding import AbstractMesh

    from chainrule._space import Space


def mesh_of(leaves: Sequence[Any]) -> AbstractMesh | None:
    """The mesh in force, or that one of these arrays lies on: one with explicit axes before any other."""
    meshes = [get_abstract_mesh(), *(jax.typeof(x).sharding.mesh for x in leaves if isinstance(x, jax.Array))]
    meshes.sort(key=is_explicit, reverse=True)
    return next((mesh for mesh in meshes if mesh.axis_names), None)


def is_explicit(mesh: Any) -> bool:
    """Whether types say how arrays are split along some axis of it."""
    return mesh is not None and AxisType.Explicit in mesh.axis_types


@dataclass(frozen=True)
class Split:
    """The last axis of arrays, split over the devices along an axis of a mesh."""

    mesh: AbstractMesh
    axis: str

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.mesh.shape[self.axis]

    def __call__(self, x: Any) -> Any:
        """The array with its last axis split; of the others nothing is said."""
        free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*free, self.axis)))


def split_over(what: str, axis: Any, mesh: AbstractMesh | None) -> Split:
    """The split that shard_axis= asks for; refused where there is no such axis."""
    if mesh is None:
        raise InputTypeError(
            f"{what}: shard_axis={axis!r} needs a mesh, and none is in force; call it within "
            f"jax.set_mesh(jax.make_mesh((devices,), ({axis!r},))), or put an argument on a mesh with jax.device_put"
        )
    if axis not in mesh.axis_names:
        known = ", ".join(f"{name!r} ({size} devices)" for name, size in mesh.shape.items())
        raise InputTypeError(f"{what}: shard_axis={axis!r} is not an axis of the mesh; it has {known}")
    if mesh.axis_types[mesh.axis_names.index(axis)] == AxisType.Manual:
        raise InputTypeError(
            f"{what}: shard_axis={axis!r} is a manual axis here, inside jax.shard_map; leave shard_axis out, or call "
            "it outside"
        )
    return Split(mesh, axis)


def automatic(mesh: Any) -> Any:
    """A context in which the axes of this mesh are no longer explicit."""
    auto = _with_automatic_axes(mesh)
    return jax.set_mesh(auto) if isinstance(mesh, Mesh) else use_abstract_mesh(auto)


def _with_automatic_axes(mesh: Any) -> Any:
    types = tuple(AxisType.Auto if t == AxisType.Explicit else t for t in mesh.axis_types)
    return Mesh(mesh.devices, mesh.axis_names, types) if isinstance(mesh, Mesh) else mesh.update(axis_types=types)


def untyped(x: Any) -> Any:
    """An array without its explicit sharding; within `automatic`. It stays where it is."""
    if not isinstance(x, jax.Array) or not is_explicit(jax.typeof(x).sharding.mesh):
        return x
    if isinstance(x, jax.core.Tracer):
        return reshard(x, PartitionSpec())
    place: Any = x.sharding
    return jax.device_put(x, NamedSharding(_with_automatic_axes(place.mesh), place.spec))


def typed(x: Any, mesh: Any, spec: Any = ()) -> Any:
    """An array of automatic axes with an explicit sharding."""
    if not isinstance(x, jax.Array):
        return x
    place = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.device_put(x, place) if isinstance(mesh, Mesh) else reshard(x, place)


def concrete_mesh(leaves: Sequence[Any]) -> Mesh | None:
    """The mesh of devices that these arrays lie on, where none of them is traced."""
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
        return None
    meshes = (getattr(getattr(x, "sharding", None), "mesh", None) for x in leaves)
    return next((m for m in meshes if isinstance(m, Mesh) and is_explicit(m)), None)


def spec_of(shape: tuple[int, ...], spaces: Sequence[Space]) -> tuple[Any, ...]:
    """How an array is split that is like a leaf of one of these spaces, or like one laid flat; else it is whole."""
    for space in spaces:
        for own, sharding in zip(space.shapes, space.shardings, strict=True):
            if own == shape:
                return tuple(sharding.spec)
    for space in spaces:
        if (space.size,) == shape[:1] and len(space.shapes) == 1 and space.shardings:
            own = tuple(space.shardings[0].spec)
            return () if any(own[1:]) else own[:1]
    return ()


def within_automatic(*names: str) -> Callable[[type], Any]:
    """Of a class of Jacobians, the methods that are computed with automatic axes where J is typed.

    What they give is typed like the outputs and inputs that it is like.
    """

    def decorate(kind: type) -> type:
        for name in names:
            setattr(kind, name, _within_automatic(getattr(kind, name)))
        return kind

    return decorate


def _within_automatic(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: Any, *args: Any, **options: Any) -> Any:
        shardings = self._columns.shardings
        if not shardings or _is_automatic(get_abstract_mesh()):  # or called by another such method
            return method(self, *args, **options)
        mesh = concrete_mesh(jax.tree.leaves((self, args))) or shardings[0].mesh
        with automatic(mesh):
            own, *others = jax.tree.map(untyped, (self, *args))
            found = method(own, *others, **options)
        return with_types(found, mesh, (self._rows, self._columns))

    return run


def _is_automatic(mesh: Any) -> bool:
    return bool(mesh.axis_names) and not is_explicit(mesh)


def with_types(value: Any, mesh: Any, spaces: Sequence[Space]) -> Any:
    """A pytree of arrays of automatic axes with explicit types; a Jacobian in it knows those of its values."""

    def knows(x: Any) -> bool:
        return hasattr(x, "with_specs")

    def one(x: Any) -> Any:
        if knows(x):
            return x.with_specs(lambda array, spec: typed(array, mesh, spec))
        return typed(x, mesh, spec_of(tuple(getattr(x, "shape", ())), spaces))

    return jax.tree.map(one, value, is_leaf=knows)
