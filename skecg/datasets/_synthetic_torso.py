"""From a heart dipole to twelve leads: electrodes on a torso, their lead field, and their noise."""

import numpy as np
from scipy.fft import irfft, rfft, rfftfreq

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")

# What a dipole of 1 mV along x (to the left), y (to the feet), z (to the back) gives in eight leads,
# after Dower, Machado and Osborne (1980).
_DOWER = {
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}

# Leads are differences of electrodes RA, LA, LL, V1-V6, for the heart and for the noise alike: so the
# identities of Einthoven (I + III = II) and Goldberger (aVR + aVL + aVF = 0) hold with noise, as on skin.
MONTAGE = np.zeros((12, 9))
MONTAGE[:6, :3] = [[-1, 1, 0], [-1, 0, 1], [0, -1, 1], [1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]]
MONTAGE[6:, :3] = -1 / 3  # Wilson's central terminal
MONTAGE[6:, 3:] = np.eye(6)

# The chest is an elliptic cylinder, 30 cm wide and 22 cm deep, its centre at the level of V1. Where V1-V6
# sit: to the left of the breastbone along x, and down, in cm.
_HALF_WIDTH, _HALF_DEPTH = 15.0, 11.0
_CHEST = np.array([(-2.5, 0), (2.5, 0), (5.5, 1.7), (8.5, 3.5), (12.3, 3.5), (15.0, 3.5)])
# The dipole in a homogeneous conductor whose field at these six places is nearest to Dower's in the least
# squares sense: place in cm, strength in cm². It accounts for 92 % of the squared length of his vectors.
_HEART = np.array([1.95, 0.76, -2.36])
_STRENGTH = 112.4
# How far from there, in cm to the left and down, the field below is nearest to what V1-V5 of 108 normal recordings
# of PTB-XL are of the dipole that the other leads give. V6 has no such place nearby, and stays.
MEASURED_PLACES = np.array([(-2.4, 0.8), (-0.9, 1.3), (1.7, -1.4), (0.8, -0.1), (-0.7, 1.8), (0.0, 0.0)])


def electrode_field():
    """Potential of each electrode against Wilson's terminal, per mV of dipole: shape (9, 3)."""
    field = {name: np.array(row) for name, row in _DOWER.items()}
    right_arm = -(field["I"] + field["II"]) / 3
    limbs = [right_arm, right_arm + field["I"], right_arm + field["II"]]
    return np.stack(limbs + [field[f"V{i}"] for i in range(1, 7)])


def _homogeneous_field(along, down):
    """Field of the dipole at places on the chest, ``along`` in rad from the breastbone: shape (6, 3)."""
    places = np.stack([_HALF_WIDTH * np.sin(along), down, -_HALF_DEPTH * np.cos(along)], axis=1) - _HEART
    return _STRENGTH * places / np.linalg.norm(places, axis=1, keepdims=True) ** 3


def field_change(shift):
    """What moving V1-V6 over the skin by ``shift``, shape (6, 2), in cm to the left and down, adds to the field.

    The field of a dipole in a homogeneous conductor says how Dower's changes from place to place. The electrodes
    of the limbs stay: on a limb, a few centimetres change next to nothing. Shape (9, 3).
    """
    along = np.arcsin(_CHEST[:, 0] / _HALF_WIDTH)
    arc = np.hypot(_HALF_WIDTH * np.cos(along), _HALF_DEPTH * np.sin(along))  # cm per rad
    moved = _homogeneous_field(along + shift[:, 0] / arc, _CHEST[:, 1] + shift[:, 1])
    return np.vstack([np.zeros((3, 3)), moved - _homogeneous_field(along, _CHEST[:, 1])])


def draw_noise(rng, n_times, fs, mains):
    """Noise of nine electrodes, shape (9, n_times), in mV; its levels vary from one recording to the next."""
    times = np.arange(n_times) / fs
    frequency = rng.uniform(0.03, 0.45, 6)  # Hz, baseline wander: breathing, drift of the electrodes
    wander = np.sin(2 * np.pi * frequency[:, None] * times + rng.uniform(0, 2 * np.pi, (6, 1)))
    noise = rng.lognormal(np.log(0.04), 0.6) * rng.standard_normal((9, 6)) @ wander

    # Muscle: 20-150 Hz, of a given power per Hz, so that a lower `fs` records less of it.
    band = rfftfreq(n_times, 1 / fs)
    spectrum = rfft(rng.standard_normal((9, n_times))) * ((band >= 20) & (band <= 150))
    strength = rng.lognormal(np.log(0.025), 0.6, (9, 1)) * np.sqrt(fs / 2 / 130)
    effort = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.05, 0.3) * times + rng.uniform(0, 2 * np.pi))
    noise += strength * irfft(spectrum, n_times) * effort

    if mains < fs / 2:  # otherwise the recorder's filter has removed it: never an alias
        hum = np.sin(2 * np.pi * (mains + rng.normal(0, 0.02)) * times + rng.uniform(0, 2 * np.pi))
        noise += rng.lognormal(np.log(0.008), 0.6) * rng.standard_normal((9, 1)) * hum
    return noise
