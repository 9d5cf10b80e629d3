"""Renders CLEVR scenes: lamps with soft shadows, rubber and metal on a gray table, many scenes at once.

Lamps, materials and colors are those of the scene file that CLEVR was rendered from; the power of its lamps is measured
to the watt. Indirect light is not traced: it is one constant from above and one from below. Metal reflects the objects
and the table around it; metal objects in a reflection have no reflections of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iodine_pl.datamodules.synthetic.clevr_scenes import METAL, PALETTE, Scene
from iodine_pl.datamodules.synthetic.clevr_solids import Solids

__all__ = ["RANDOM_NUMBERS", "SAMPLES", "Stage"]

SAMPLES = 4
"""Rays per pixel: one in each quarter."""

RANDOM_NUMBERS = 10
"""Per ray: 2 for its position in the pixel, 2 for each of three lamps, 2 for the rougher reflection of metal."""

_LAMP_SIDE = (0.5, 1.0, 0.5)  # key, back, fill: squares that face the origin
_LAMP_RADIANCE = ((100.0, 93.2, 81.7), (12.5, 12.5, 12.5), (22.86, 24.54, 30.0))
_SUN = (0.4145, -0.1946, 0.889)  # direction to it
_SUN_IRRADIANCE = 0.45
_TABLE = 0.8  # albedo
_FROM_BELOW, _FROM_ABOVE = 0.20, 0.02  # indirect radiance
_BACKDROP = 0.13  # radiance of the far wall in metal; fades to zero above some 50 degrees
_RUBBER_GLOSS, _RUBBER_INDEX = 0.35, 1.2
_METAL_SHARP, _METAL_GLOSS, _METAL_ROUGH = 0.6, 0.4, 0.2  # shares of the two reflections; roughness of the second
_SUN_IN_METAL = 0.03  # roughness of the sharp reflection of the sun, which is a point here
_BRIGHTEST = 3.0  # limit for a single ray, since lamps reflected in metal would leave specks
_OFF = 1e-3  # distance from a surface at which rays start
_FAR = 1e8


class _Surface(NamedTuple):
    """What rays have hit, all (S, R, ...): ``point``, ``normal``, ``solid`` (-1: the table), ``color``, ``metal``."""

    point: Tensor
    normal: Tensor
    solid: Tensor
    color: Tensor
    metal: Tensor
    lost: Tensor


class Stage:
    """Several scenes on a device, through which rays are traced."""

    def __init__(self, scenes: Sequence[Scene], device: torch.device | str) -> None:
        most = max(len(scene.radius) for scene in scenes)

        def padded(values: list[NDArray[np.float64]] | list[NDArray[np.int64]]) -> Tensor:
            whole = np.zeros((len(values), most, *values[0].shape[1:]), values[0].dtype)
            for row, value in zip(whole, values, strict=True):
                row[: len(value)] = value
            return torch.from_numpy(whole).to(device, torch.float32 if whole.dtype == np.float64 else torch.int64)

        self.device = torch.device(device)
        self.cameras = [scene.camera for scene in scenes]
        self.solids = Solids(
            padded([scene.place for scene in scenes]),
            padded([scene.radius for scene in scenes]),
            padded([np.radians(scene.rotation) for scene in scenes]),
            padded([scene.shape for scene in scenes]),
        )
        self._color = padded([PALETTE[scene.color] / 255.0 for scene in scenes])
        self._metal = padded([scene.material for scene in scenes]) == METAL
        lamps = np.stack([scene.lights for scene in scenes]).astype(np.float32)
        self._lamps = torch.from_numpy(lamps).to(device)  # (S, 3, 3)
        facing = -self._lamps / torch.linalg.vector_norm(self._lamps, dim=-1, keepdim=True)
        level = torch.cross(facing, torch.tensor([0.0, 0.0, 1.0], device=self.device).expand_as(facing), dim=-1)
        level = torch.nn.functional.normalize(level, dim=-1)
        self._lamp_axes = torch.stack([level, torch.cross(facing, level, dim=-1), facing], dim=2)  # (S, 3, 3 axes, 3)

    def entities(self, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Tensor:
        """Returns the visible entity at points of the image (R,) in every scene: (S, R), 0 for the table, 1, 2, ..."""
        toward = np.stack([camera.directions(rows, columns) for camera in self.cameras])
        origin, direction = self._rays(toward)
        hit = self.solids.closest(origin, direction, torch.full(direction.shape[:2], -1, device=self.device))
        return torch.where(hit.distance < self._table(origin, direction), hit.solid, -1) + 1

    def colors(self, rows: NDArray[np.float64], columns: NDArray[np.float64], random: Tensor) -> Tensor:
        """Returns the light (S, R, 3), linear RGB, that arrives along rays.

        Args:
            rows, columns: (S, R) where the rays cross the image.
            random: (S, R, 8) uniform numbers.
        """
        each = zip(self.cameras, rows, columns, strict=True)
        toward = np.stack([camera.directions(row, column) for camera, row, column in each])
        origin, direction = self._rays(toward)
        nothing = torch.full(direction.shape[:2], -1, device=self.device)
        return self._look(origin, direction, nothing, random, depth=0).clamp(max=_BRIGHTEST)

    def _rays(self, toward: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        direction = torch.from_numpy(toward).to(self.device, torch.float32)
        place = torch.from_numpy(np.stack([camera.place for camera in self.cameras])).to(direction)
        return place.unsqueeze(1).expand_as(direction).contiguous(), direction

    @staticmethod
    def _table(origin: Tensor, direction: Tensor) -> Tensor:
        down = direction[..., 2]
        return torch.where(down < -1e-6, -origin[..., 2] / down.clamp(max=-1e-6), _FAR)

    def _look(
        self, origin: Tensor, direction: Tensor, own: Tensor, random: Tensor, depth: int, lamps: int = 0
    ) -> Tensor:
        """Returns the light (S, R, 3) that arrives along rays; the first ``lamps`` of them can also hit lamps."""
        surface, distance = self._meet(origin, direction, own)
        diffuse, gloss = self._lit(surface, direction, random, sharp=depth == 0)
        facing = -(direction * surface.normal).sum(-1)
        mirrored = direction + 2.0 * facing.unsqueeze(-1) * surface.normal
        on_solid = surface.solid >= 0
        part = (_fresnel(facing.clamp(0.0, 1.0), _RUBBER_INDEX) * on_solid).unsqueeze(-1)
        light = (1.0 - part) * diffuse + part * (gloss + _surroundings(mirrored))
        metal = on_solid & surface.metal
        if depth:
            around = _surroundings(mirrored)
            light = torch.where(metal.unsqueeze(-1), surface.color * (gloss + around), light)
        else:
            light = self._add_metal(light, metal, surface, gloss, mirrored, random)
        backdrop = _BACKDROP * ((0.75 - direction[..., 2:]) / 0.35).clamp(0.0, 1.0)
        light = torch.where(surface.lost.unsqueeze(-1), backdrop, light)
        if not lamps:
            return light
        lamp, reach = self._lamp_seen(origin[:, :lamps], direction[:, :lamps])
        light[:, :lamps] = torch.where((reach < distance[:, :lamps]).unsqueeze(-1), lamp, light[:, :lamps])
        return light

    def _meet(self, origin: Tensor, direction: Tensor, own: Tensor) -> tuple[_Surface, Tensor]:
        hit, table = self.solids.closest(origin, direction, own), self._table(origin, direction)
        solid = torch.where(hit.distance < table, hit.solid, -1)
        distance = torch.minimum(hit.distance, table)
        lost = distance >= _FAR
        point = origin + distance.masked_fill(lost, 0.0).unsqueeze(-1) * direction
        on_table = (solid < 0).unsqueeze(-1)
        up = torch.tensor([0.0, 0.0, 1.0], device=self.device)
        normal = torch.where(on_table, up, self.solids.normal(solid, point))
        which = (torch.arange(len(solid), device=self.device).unsqueeze(1).expand_as(solid), solid.clamp(min=0))
        color = torch.where(on_table, _TABLE, self._color[which])
        return _Surface(point + _OFF * normal, normal, solid, color, self._metal[which], lost), distance

    def _lit(self, surface: _Surface, direction: Tensor, random: Tensor, sharp: bool) -> tuple[Tensor, Tensor]:
        """Returns the light of lamps and sun reflected along the rays: diffuse with color, and gloss without color."""
        up = surface.normal[..., 2:]
        diffuse = math.pi * (_FROM_BELOW * (1.0 - up) + _FROM_ABOVE * (1.0 + up)) / 2.0 * torch.ones_like(surface.color)
        gloss = torch.zeros_like(diffuse)
        rough = torch.where(surface.metal, _METAL_ROUGH, _RUBBER_GLOSS)
        share = torch.where(surface.metal, _METAL_GLOSS, 1.0)
        solids = surface.solid >= 0
        for lamp in range(4):
            if lamp < 3:
                axes, side = self._lamp_axes[:, lamp], _LAMP_SIDE[lamp]  # (S, 3, 3)
                across = (random[..., 2 * lamp : 2 * lamp + 2] - 0.5) * side
                place = self._lamps[:, None, lamp] + torch.bmm(across, axes[:, :2])
                toward = place - surface.point
                squared = toward.square().sum(-1)
                reach = squared.sqrt()
                toward = toward / reach.unsqueeze(-1)
                leaving = -torch.bmm(toward, axes[:, 2:].transpose(1, 2)).squeeze(-1)
                strength = leaving.clamp(min=0.0) * side**2 / squared
                radiance = torch.tensor(_LAMP_RADIANCE[lamp], device=self.device)
            else:
                toward = torch.tensor(_SUN, device=self.device).expand_as(surface.point)
                reach, strength = torch.full_like(up[..., 0], _FAR), torch.ones_like(up[..., 0])
                radiance = torch.full((3,), _SUN_IRRADIANCE, device=self.device)
            falling = (toward * surface.normal).sum(-1)
            wanted = (falling > 0.0) & (strength > 0.0) & ~surface.lost
            shadow = self.solids.blocked(surface.point, toward, reach, wanted, surface.solid)
            arriving = (strength * falling * (wanted & ~shadow)).unsqueeze(-1) * radiance
            diffuse += arriving
            shine = share * _ggx(surface.normal, -direction, toward, rough)
            if sharp and lamp == 3:
                shine = shine + surface.metal * _METAL_SHARP * _ggx(surface.normal, -direction, toward, _SUN_IN_METAL)
            gloss += arriving * (shine * solids).unsqueeze(-1)
        return surface.color * diffuse / math.pi, gloss

    def _add_metal(
        self, light: Tensor, metal: Tensor, surface: _Surface, gloss: Tensor, mirrored: Tensor, random: Tensor
    ) -> Tensor:
        """Replaces the light of metal by its two reflections of the surroundings."""
        most = int(metal.sum(1).max())
        if not most:
            return light
        chosen = metal.byte().topk(most, dim=1).indices  # (S, most): metal first, then others, which are discarded
        kept = metal.gather(1, chosen)

        def of(values: Tensor) -> Tensor:
            return values.gather(1, chosen.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

        point, normal, mirror, numbers = of(surface.point), of(surface.normal), of(mirrored), of(random)
        spread = numbers[..., 6:8]
        scattered = [_scattered(mirror, normal, turned) for turned in (spread, (spread + 0.5) % 1.0)]
        rays = torch.cat([mirror, *scattered], 1)
        # The sharp reflection shows lamps; in the rougher one they are part of the gloss.
        start, own, again = (torch.cat([x] * 3, 1) for x in (point, surface.solid.gather(1, chosen), numbers))
        seen = self._look(start, rays, own, again, depth=1, lamps=most)
        sharp, *rough = seen.clamp(max=_BRIGHTEST).chunk(3, dim=1)
        reflected = _METAL_SHARP * sharp + _METAL_GLOSS * (rough[0] + rough[1]) / 2.0 + of(gloss)
        which = kept.nonzero(as_tuple=True)
        light = light.clone()
        light[which[0], chosen[which]] = (of(surface.color) * reflected)[which]
        return light

    def _lamp_seen(self, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the radiance (S, R, 3) of the first lamp that each ray hits, and its distance."""
        seen = torch.zeros_like(direction)
        reach = torch.full_like(direction[..., 0], _FAR)
        for lamp in range(3):
            across, down, facing = self._lamp_axes[:, lamp, None].unbind(2)  # (S, 1, 3) each
            offset = self._lamps[:, None, lamp] - origin
            against = (direction * facing).sum(-1)
            distance = (offset * facing).sum(-1) / torch.where(against.abs() < 1e-9, 1e-9, against)
            met = distance.unsqueeze(-1) * direction - offset
            half = _LAMP_SIDE[lamp] / 2.0
            inside = ((met * across).sum(-1).abs() < half) & ((met * down).sum(-1).abs() < half)
            here = inside & (against < 0.0) & (distance > 0.0) & (distance < reach)
            seen = torch.where(here.unsqueeze(-1), torch.tensor(_LAMP_RADIANCE[lamp], device=self.device), seen)
            reach = torch.where(here, distance, reach)
        return seen, reach


def _surroundings(direction: Tensor) -> Tensor:
    """Returns an estimate of the light that is reflected from a direction: the table below, little above."""
    below = (0.5 - direction[..., 2:] / 0.7).clamp(0.0, 1.0)
    return _FROM_BELOW * below + _FROM_ABOVE * (1.0 - below)


def _fresnel(cosine: Tensor, index: float) -> Tensor:
    """Returns the fraction of unpolarized light that a dielectric reflects."""
    inner = (index**2 - 1.0 + cosine.square()).sqrt()
    straight = (inner - cosine) / (inner + cosine)
    crossed = (cosine * (inner + cosine) - 1.0) / (cosine * (inner - cosine) + 1.0)
    return 0.5 * straight.square() * (1.0 + crossed.square())


def _ggx(normal: Tensor, view: Tensor, toward: Tensor, alpha: Tensor | float) -> Tensor:
    """Returns the reflectance (S, R) of a rough colorless mirror (Walter et al. 2007)."""
    half = torch.nn.functional.normalize(view + toward, dim=-1)
    squared = torch.as_tensor(alpha, device=normal.device) ** 2
    peak = (normal * half).sum(-1).clamp(0.0, 1.0).square() * (squared - 1.0) + 1.0
    density = squared / (math.pi * peak.square())
    out, in_ = ((normal * v).sum(-1).clamp(min=1e-3) for v in (view, toward))
    masking = [2.0 * c / (c + (squared + (1.0 - squared) * c.square()).sqrt()) for c in (out, in_)]
    return density * masking[0] * masking[1] / (4.0 * out * in_)


def _scattered(mirrored: Tensor, normal: Tensor, random: Tensor) -> Tensor:
    """Scatters mirrored rays like the facets of the rougher reflection; none goes into the surface."""
    u, v = random.unbind(-1)
    cosine = ((1.0 - u) / (1.0 + (_METAL_ROUGH**2 - 1.0) * u)).sqrt()
    sine, angle = (1.0 - cosine.square()).clamp(min=0.0).sqrt(), 2.0 * math.pi * v
    steep = normal[..., 2:].abs() > 0.9
    other = torch.where(steep, torch.tensor([1.0, 0.0, 0.0]).to(normal), torch.tensor([0.0, 0.0, 1.0]).to(normal))
    first = torch.nn.functional.normalize(torch.cross(normal, other, dim=-1), dim=-1)
    second = torch.cross(normal, first, dim=-1)
    facet = (sine * angle.cos()).unsqueeze(-1) * first + (sine * angle.sin()).unsqueeze(-1) * second
    facet = facet + cosine.unsqueeze(-1) * normal
    arriving = mirrored - 2.0 * (mirrored * normal).sum(-1, keepdim=True) * normal
    turned = arriving - 2.0 * (arriving * facet).sum(-1, keepdim=True) * facet
    into = (turned * normal).sum(-1, keepdim=True) <= 0.0
    return torch.where(into, mirrored, turned)
