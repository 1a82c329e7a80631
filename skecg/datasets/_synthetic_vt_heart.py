"""Two ventricles as meshes, how excitation spreads through them, and what the electrodes see of it.

Coordinates are those of the left ventricle: lateral, anterior, apical, in mm, from the centre of its base.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from ._synthetic_torso import _CHEST, _HALF_DEPTH, _HALF_WIDTH, _HEART, _STRENGTH, electrode_field

# The left ventricle is cut off at this angle from the apex, seen from the centre of the spheroid.
BASE_ANGLE = np.radians(110)
# Layers from endocardium to epicardium, rows from base to apex, columns around. A third of the columns is septal.
N_LAYERS, N_ROWS, N_COLUMNS = 4, 18, 42
_SEPTAL = np.arange(N_COLUMNS // 3, 2 * N_COLUMNS // 3 + 1)
# The free wall of the right ventricle: an inner and an outer layer before the septum, not down to the apex.
_RV_ROWS = 14
N_LEFT, N_RIGHT = N_LAYERS * N_ROWS * N_COLUMNS, 2 * _RV_ROWS * len(_SEPTAL)
_N_NODES = N_LEFT + N_RIGHT

_ROW_ANGLES = np.linspace(BASE_ANGLE, 0, N_ROWS)
_COLUMN_ANGLES = 2 * np.pi * np.arange(N_COLUMNS) / N_COLUMNS  # from lateral over anterior
_REACH = 9.0  # mm, how far from a site the nodes are to which excitation goes in a straight line
_HELIX = np.radians(60)  # of the fibres, from +60 degrees at the endocardium to -60 at the epicardium


@dataclass(frozen=True)
class Anatomy:
    """The ventricles of one patient; the defaults are those of the generic heart."""

    length: float = 85.0  # mm from base to apex, along the cavity of the left ventricle
    diameter: float = 48.0  # mm, of that cavity where it is widest
    wall: float = 10.0  # mm
    rv_depth: float = 24.0  # mm from the septum to the free wall of the right ventricle, at the base
    rv_wall: float = 3.0  # mm
    speed: float = 0.65  # mm/ms along the fibres
    anisotropy: float = 2.0  # speed along over speed across the fibres
    endocardial: float = 1.8  # how much faster the endocardial layers conduct
    scar: tuple | None = None  # angles of its centre (rad) and radius (mm)

    @property
    def radii(self):
        """Half the axes of the spheroid that the endocardium is part of: across and along, mm."""
        return self.diameter / 2, self.length / (1 - np.cos(BASE_ANGLE))

    def surface(self, angle, column, depth=0.0):
        """Points of the left ventricle at angles from the apex and around (rad), depth from 0 to 1: (..., 3)."""
        thickness = self.wall * np.asarray(depth)
        short, long = self.radii
        across = (short + thickness) * np.sin(angle)
        apical = (long + 0.7 * thickness) * np.cos(angle) - long * np.cos(BASE_ANGLE)  # the apex is thinner
        return np.stack(np.broadcast_arrays(across * np.cos(column), across * np.sin(column), apical), axis=-1)

    def nodes(self):
        """Points of all nodes and the direction of their fibres, each (n_nodes, 3)."""
        depth = np.linspace(0, 1, N_LAYERS)[:, None, None]
        rows, columns = _ROW_ANGLES[None, :, None], _COLUMN_ANGLES[None, None]
        left = self.surface(rows, columns, depth)
        # The free wall of the right ventricle bulges out from the septum, most in the middle and at the base.
        across = np.sin(np.pi * np.linspace(0, 1, len(_SEPTAL)))
        along = 1 - np.linspace(0, 1, _RV_ROWS) ** 2
        bulge = self.rv_depth * along[:, None] * across + self.rv_wall * np.arange(2)[:, None, None]
        outward = np.stack([np.cos(_COLUMN_ANGLES), np.sin(_COLUMN_ANGLES), np.zeros(N_COLUMNS)], axis=-1)[_SEPTAL]
        right = left[-1, :_RV_ROWS][:, _SEPTAL] + bulge[..., None] * outward
        fibres = [_fibres(points, np.broadcast_to(helix, points.shape[:3])) for points, helix in (
            (left, _HELIX * (1 - 2 * depth)), (right, _HELIX * (1 - 2 * np.arange(2.0)[:, None, None])),
        )]
        flat = [np.concatenate([part.reshape(-1, 3) for part in parts]) for parts in ((left, right), fibres)]
        return tuple(flat)

    def health(self, points):
        """1 in healthy muscle, less in the scar, all through the wall: (n_nodes,)."""
        health = np.ones(len(points))
        if self.scar is not None:
            *centre, radius = self.scar
            inner = points[: N_ROWS * N_COLUMNS]
            distance = np.linalg.norm(inner - self.surface(*centre), axis=1)
            # A border zone of 5 mm leads to a core with a quarter of the speed and of the source strength.
            health[:N_LEFT] = np.tile(0.25 + 0.75 * np.clip((distance - radius + 5) / 5, 0, 1), N_LAYERS)
        return health

    def arrival_times(self, sites):
        """When excitation that starts at sites (n_sites, 2), two angles in rad, reaches the nodes: (n_sites, n_nodes), ms.

        The least time over all paths along the edges of the mesh, which join each node to 24 others of its layer and
        9 of either neighbouring one.
        """
        points, fibres = self.nodes()
        first, second, inner = _topology()[0]
        slowness = 1 / self.health(points)
        times = self._travel(points[second] - points[first], fibres[first] + fibres[second], inner)
        times *= (slowness[first] + slowness[second]) / 2
        begin = self.surface(*np.asarray(sites).T)
        inner_half = points[: 2 * N_ROWS * N_COLUMNS]
        start, near = np.nonzero(np.linalg.norm(inner_half - begin[:, None], axis=2) < _REACH)
        to_near = self._travel(points[near] - begin[start], fibres[near], near < N_ROWS * N_COLUMNS) * slowness[near]
        # each site is a node of its own that paths can only leave
        ends = np.concatenate([first, second, _N_NODES + start]), np.concatenate([second, first, near])
        graph = csr_array((
            np.maximum(np.concatenate([times, times, to_near]), 1e-6),
            tuple(nodes.astype(np.int32) for nodes in ends),  # of 64 bits, scipy 1.11 does not take them
        ), shape=(_N_NODES + len(sites),) * 2)
        return dijkstra(graph, indices=_N_NODES + np.arange(len(sites)))[:, :_N_NODES]

    def _travel(self, steps, fibres, inner):
        """Times in ms along steps (n, 3) in mm, given the fibres there; `inner` steps are beneath an endocardium."""
        fibres = fibres / np.maximum(np.linalg.norm(fibres, axis=1, keepdims=True), 1e-9)
        along = np.einsum("ij,ij->i", steps, fibres) ** 2
        across = np.maximum(np.einsum("ij,ij->i", steps, steps) - along, 0)
        times = np.sqrt(along + across * self.anisotropy**2) / self.speed
        return np.where(inner, times / self.endocardial, times)


def _fibres(points, helix):
    """Directions at points (n_layers, n_rows, n_columns, 3), `helix` rad up from the circumference towards the base."""
    upward = -np.gradient(points, axis=1)
    around = np.stack([-points[..., 1], points[..., 0], np.zeros(points.shape[:-1])], axis=-1)
    upward, around = (v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9) for v in (upward, around))
    return np.cos(helix)[..., None] * around + np.sin(helix)[..., None] * upward


@cache
def _topology():
    """Edges (first, second, whether beneath an endocardium) and triangles, counterclockwise as seen from outside."""
    left = np.arange(N_LEFT).reshape(N_LAYERS, N_ROWS, N_COLUMNS)
    right = np.arange(N_LEFT, _N_NODES).reshape(2, _RV_ROWS, len(_SEPTAL))
    edges = []
    for nodes, closed in ((left, True), (right, False)):
        steps = [(0, r, c) for r in range(-2, 3) for c in range(-2, 3) if (r, c) > (0, 0)]
        steps += [(1, r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
        for layers, rows, columns in steps:
            here = nodes[: len(nodes) - layers, max(0, -rows) : nodes.shape[1] - max(0, rows)]
            there = nodes[layers:, max(0, rows) : nodes.shape[1] - max(0, -rows)]
            if closed:
                there = np.roll(there, -columns, axis=2)
            else:
                here = here[..., max(0, -columns) : nodes.shape[2] - max(0, columns)]
                there = there[..., max(0, columns) : nodes.shape[2] - max(0, -columns)]
            edges.append((here.ravel(), there.ravel()))
    # Where the right ventricle is attached, its inner layer lies on the outer layer of the left one.
    rim = np.ones((_RV_ROWS, len(_SEPTAL)), bool)
    rim[:-1, 1:-1] = False
    attached = left[-1, :_RV_ROWS][:, _SEPTAL][rim]
    edges.append((attached, right[0][rim]))
    first, second = (np.concatenate(part) for part in zip(*edges, strict=True))
    # Fast layers line the cavities: the inner layers of both ventricles, and the right side of the septum.
    lining = np.zeros(_N_NODES, bool)
    lining[left[0]] = lining[right[0]] = True
    lining[left[-1, :_RV_ROWS][:, _SEPTAL]] = True
    wrapped = np.concatenate([left, left[..., :1]], axis=2)
    triangles = np.concatenate([_boundary(wrapped, sides=False), _boundary(right, sides=True)])
    return (first, second, lining[first] & lining[second]), triangles


def surface_triangles():
    return _topology()[1]


def _boundary(nodes, sides):
    """Triangles around a block of nodes (n_layers, n_rows, n_columns): (n, 3)."""
    faces = [nodes[-1][::-1], nodes[0], nodes[::-1, 0], nodes[:, -1]]  # outer and inner, base and apical end
    if sides:
        faces += [nodes[..., 0], nodes[..., -1][::-1]]
    quads = [(f[:-1, :-1].ravel(), f[1:, :-1].ravel(), f[1:, 1:].ravel(), f[:-1, 1:].ravel()) for f in faces]
    a, b, c, d = np.concatenate(quads, axis=1)
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


def source_weights(points, triangles, field):
    """What a membrane potential of 1 at each node adds to each electrode: (n_electrodes, n_nodes).

    Muscle whose potential v differs from place to place is a source of current density -grad v, and an electrode sees
    the integral of its lead field L times that. As L has no sources within the heart, this is the integral of
    -v L.n over the surface alone (n points outwards).

    Parameters
    ----------
    points : ndarray of shape (n_nodes, 3), where the nodes are in the torso, mm
    triangles : ndarray of shape (n_triangles, 3), a closed surface
    field : callable, lead field (n_electrodes, n_places, 3) of places (n_places, 3)
    """
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2  # mm²
    flux = -np.einsum("epx,px->ep", field(corners.mean(axis=1)), normals) / 3
    weights = np.zeros((len(flux), len(points)))
    for corner in triangles.T:
        for electrode, share in enumerate(flux):
            weights[electrode] += np.bincount(corner, share, minlength=len(points))
    return weights


def chest_field(size=1.0, shift=None):
    """The lead field of nine electrodes as a function of places in the torso, for :func:`source_weights`.

    Parameters
    ----------
    size : float
        Of the torso, against the reference one.
    shift : ndarray of shape (6, 2), default=None
        Displacement of V1-V6 over the skin in cm, to the left and down.
    """
    shift = np.zeros((6, 2)) if shift is None else shift
    along = np.arcsin(_CHEST[:, 0] / _HALF_WIDTH)
    arc = np.hypot(_HALF_WIDTH * np.cos(along), _HALF_DEPTH * np.sin(along))  # cm per rad
    usual = _electrodes(along, _CHEST[:, 1])
    moved = _electrodes(along + shift[:, 0] / arc, _CHEST[:, 1] + shift[:, 1])
    remote = electrode_field()
    # Dower's vectors hold at one place; what changes from there is that of a dipole in a homogeneous conductor.
    remote[3:] -= _dipole_field(usual - _HEART)

    def field(places):
        potential = np.repeat(remote[:, None], len(places), axis=1)
        potential[3:] += _dipole_field(moved[:, None] - places / 10 / size)
        return potential / size**2

    return field


def _electrodes(along, down):
    return np.stack([_HALF_WIDTH * np.sin(along), down, -_HALF_DEPTH * np.cos(along)], axis=1)


def _dipole_field(distance):
    return _STRENGTH * distance / np.linalg.norm(distance, axis=-1, keepdims=True) ** 3
