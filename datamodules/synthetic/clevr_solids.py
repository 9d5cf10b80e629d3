"""Intersects rays with spheres, cylinders and cubes with rounded edges, for many scenes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from iodine_pl.datamodules.synthetic.clevr_scenes import CUBE, CYLINDER, SPHERE

__all__ = ["Hit", "Solids"]

_BEVEL = {CUBE: 0.2, CYLINDER: 0.1}  # radius of the rounded edges, relative to that of the solid
_STEPS = 10  # along the ray to a rounded edge, starting on the sharp solid around it
_TOUCH = 2e-3  # distance at which a ray has hit
_FAR = 1e9


class Hit(NamedTuple):
    """What rays hit: ``distance`` (S, R), and ``solid`` (S, R), its number or -1 for none."""

    distance: Tensor
    solid: Tensor


class Solids:
    """Up to M solids in each of S scenes.

    Args:
        place: (S, M, 3) centers.
        radius: (S, M), half the side of a cube; 0 where there is no solid.
        turn: (S, M) rotation about the vertical, in radians.
        shape: (S, M) code.
    """

    def __init__(self, place: Tensor, radius: Tensor, turn: Tensor, shape: Tensor) -> None:
        self.place, self.radius, self.shape = place, radius, shape
        self.cosine, self.sine = turn.cos(), turn.sin()
        # A bounding sphere of each solid; the cube's is the largest.
        self._around = radius * torch.where(shape == SPHERE, 1.0, torch.where(shape == CYLINDER, 2.0**0.5, 3.0**0.5))

    def closest(self, origin: Tensor, direction: Tensor, own: Tensor) -> Hit:
        """Returns what rays (S, R, 3) hit first.

        ``own`` (S, R) is the solid that a ray starts from, or -1. It is never hit, since all solids are convex.
        """
        near = self._near(origin, direction, own)
        pairs = near.nonzero(as_tuple=True)
        distance = torch.full(near.shape, _FAR, device=origin.device)
        distance[pairs] = self._distance(pairs, origin, direction)
        best = distance.min(dim=2)
        return Hit(best.values, torch.where(best.values < _FAR, best.indices, -1))

    def blocked(self, origin: Tensor, direction: Tensor, limit: Tensor, wanted: Tensor, own: Tensor) -> Tensor:
        """Tells which rays (S, R, 3) hit something nearer than ``limit`` (S, R).

        Only the rays in ``wanted`` (S, R) are traced; ``own`` as in :meth:`closest`.
        """
        near = self._near(origin, direction, own) & wanted.unsqueeze(2)
        pairs = near.nonzero(as_tuple=True)
        meets = self._distance(pairs, origin, direction) < limit[pairs[:2]]
        found = torch.zeros(limit.shape, dtype=torch.bool, device=origin.device)
        found[pairs[0][meets], pairs[1][meets]] = True
        return found

    def normal(self, solid: Tensor, point: Tensor) -> Tensor:
        """Returns the outward unit normals (S, R, 3) at points on solids (S, R); undefined where these are -1."""
        pairs = (torch.arange(len(solid), device=solid.device).unsqueeze(1).expand_as(solid), solid.clamp(min=0))
        local = self._turned(point - self.place[pairs], pairs)
        _, core = self._edge_and_core(pairs)
        beyond = (local.abs() - core.unsqueeze(-1)).clamp(min=0.0) * local.sign()
        across = torch.linalg.vector_norm(local[..., :2], dim=-1, keepdim=True)
        side = (across - core.unsqueeze(-1)).clamp(min=0.0) * local[..., :2] / across.clamp(min=1e-9)
        rounded = torch.cat([side, beyond[..., 2:]], dim=-1)
        shape = self.shape[pairs].unsqueeze(-1)
        normal = torch.where(shape == CUBE, beyond, torch.where(shape == CYLINDER, rounded, local))
        cosine, sine = self.cosine[pairs], self.sine[pairs]
        x, y, z = normal.unbind(-1)
        turned = torch.stack([x * cosine - y * sine, x * sine + y * cosine, z], dim=-1)
        return torch.nn.functional.normalize(turned, dim=-1)

    def _near(self, origin: Tensor, direction: Tensor, own: Tensor) -> Tensor:
        """Tells (S, R, M) which rays hit the bounding sphere of each solid except their own."""
        centers = self.place.transpose(1, 2)
        along = torch.bmm(direction, centers) - (direction * origin).sum(-1, keepdim=True)
        apart = torch.bmm(origin, centers).mul_(-2.0)
        apart += origin.square().sum(-1, keepdim=True)
        apart += self.place.square().sum(-1).unsqueeze(1)
        around = self._around.unsqueeze(1)
        missed = (apart - along.square()) >= around.square()
        same = own.unsqueeze(2) == torch.arange(missed.shape[2], device=own.device)
        return ~(missed | (along <= -around) | (around == 0.0) | same)

    def _turned(self, vector: Tensor, pairs: tuple[Tensor, ...]) -> Tensor:
        """Transforms vectors from the world to the frame of the solids."""
        cosine, sine = self.cosine[pairs], self.sine[pairs]
        x, y, z = vector.unbind(-1)
        return torch.stack([x * cosine + y * sine, y * cosine - x * sine, z], dim=-1)

    def _edge_and_core(self, pairs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Returns the radius of the rounded edges, and half the side of the sharp core inside of them."""
        radius = self.radius[pairs]
        edge = radius * torch.where(self.shape[pairs] == CUBE, _BEVEL[CUBE], _BEVEL[CYLINDER])
        return edge, radius - edge

    def _distance(self, pairs: tuple[Tensor, ...], origin: Tensor, direction: Tensor) -> Tensor:
        """Returns the distances (P,) from rays to solids for ``pairs`` (scene, ray, solid), very large for a miss."""
        where, which = pairs[:2], (pairs[0], pairs[2])
        start = self._turned(origin[where] - self.place[which], which)
        toward = self._turned(direction[where], which)
        radius, shape = self.radius[which], self.shape[which]
        edge, core = self._edge_and_core(which)
        distance = torch.empty_like(radius)
        for kind, meet in ((SPHERE, _sphere), (CYLINDER, _cylinder), (CUBE, _cube)):
            these = (shape == kind).nonzero().squeeze(1)
            distance[these] = meet(start[these], toward[these], radius[these], edge[these], core[these])
        return distance


def _sphere(start: Tensor, toward: Tensor, radius: Tensor, edge: Tensor, core: Tensor) -> Tensor:
    along = -(start * toward).sum(-1)
    inside = radius.square() - (start + along.unsqueeze(-1) * toward).square().sum(-1)
    distance = along - inside.clamp(min=0.0).sqrt()
    return torch.where((inside > 0.0) & (distance > 0.0), distance, _FAR)


def _slab(start: Tensor, toward: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distances at which rays enter and leave the space between two planes at -half and half."""
    inverse = 1.0 / torch.where(toward.abs() < 1e-9, 1e-9, toward)
    middle, reach = -start * inverse, half * inverse.abs()
    return middle - reach, middle + reach


def _cube(start: Tensor, toward: Tensor, radius: Tensor, edge: Tensor, core: Tensor) -> Tensor:
    enter, leave = _slab(start, toward, radius.unsqueeze(-1))

    def outside(point: Tensor, core: Tensor, edge: Tensor) -> Tensor:
        beyond = point.abs() - core.unsqueeze(-1)
        inner = beyond.amax(-1).clamp(max=0.0)
        outer: Tensor = torch.linalg.vector_norm(beyond.clamp(min=0.0), dim=-1)
        return outer + inner - edge

    return _march(start, toward, enter.amax(-1), leave.amin(-1), core, edge, outside)


def _cylinder(start: Tensor, toward: Tensor, radius: Tensor, edge: Tensor, core: Tensor) -> Tensor:
    a = toward[:, :2].square().sum(-1).clamp(min=1e-9)
    b = (start[:, :2] * toward[:, :2]).sum(-1)
    inside = b.square() - a * (start[:, :2].square().sum(-1) - radius.square())
    half = inside.clamp(min=0.0).sqrt() / a
    enter, leave = _slab(start[:, 2], toward[:, 2], radius)
    leave = torch.where(inside > 0.0, torch.minimum(leave, half - b / a), -1.0)

    def outside(point: Tensor, core: Tensor, edge: Tensor) -> Tensor:
        side = torch.linalg.vector_norm(point[:, :2], dim=-1) - core
        top = point[:, 2].abs() - core
        return torch.hypot(side.clamp(min=0.0), top.clamp(min=0.0)) + torch.maximum(side, top).clamp(max=0.0) - edge

    return _march(start, toward, torch.maximum(enter, -half - b / a), leave, core, edge, outside)


def _march(
    start: Tensor,
    toward: Tensor,
    enter: Tensor,
    leave: Tensor,
    core: Tensor,
    edge: Tensor,
    outside: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Marches from the sharp solid to the rounded one inside of it, in steps as long as nothing can be hit."""
    distance = torch.full_like(enter, _FAR)
    enter = enter.clamp(min=0.0)  # a ray may start between the two, at a rounded edge
    todo = (enter < leave).nonzero().squeeze(1)
    at = enter[todo]
    start, toward, leave, core, edge = start[todo], toward[todo], leave[todo], core[todo], edge[todo]
    for _ in range(_STEPS):
        gap = outside(start + at.unsqueeze(-1) * toward, core, edge)
        there = gap < _TOUCH * 0.05
        distance[todo[there]] = at[there]
        on = (~there & (at < leave)).nonzero().squeeze(1)
        at = (at + gap)[on]
        todo, start, toward, leave, core, edge = todo[on], start[on], toward[on], leave[on], core[on], edge[on]
    near = outside(start + at.unsqueeze(-1) * toward, core, edge) < _TOUCH
    distance[todo[near]] = at[near]
    return distance
