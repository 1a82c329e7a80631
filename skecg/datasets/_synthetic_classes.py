"""The classes of the simulator: the waves of a normal beat, and what each disease makes of them."""

from dataclasses import dataclass, field

# One beat is a sum of Gaussian lobes of the dipole, tuned by eye to textbook tracings. Lobes of P are timed
# from the onset of P, the others from the R peak; ST and T stretch with the RR interval.
#             centre, width (ms, one standard deviation), left, down, back (mV)
SINUS_BEAT = {
    "P right": (36, 16, 0.045, 0.070, -0.055),  # the right atrium lies in front and fires first
    "P left": (68, 17, 0.065, 0.065, 0.050),
    "Q": (-27, 8, -0.14, -0.06, -0.24),  # the septum, from left to right
    "R apex": (-3, 10, 0.75, 0.60, -0.30),
    "R wall": (13, 11, 0.70, 0.50, 0.55),
    "S": (35, 10, -0.12, -0.12, 0.32),  # the base of the heart, last
    "late": (70, 14, 0.0, 0.0, 0.0),
    "ST": (120, 40, 0.02, 0.015, -0.03),
    "T rise": (235, 48, 0.19, 0.13, -0.13),
    "T fall": (285, 32, 0.26, 0.19, -0.15),
}
# The same for hearts with an age: P as above; QRS, ST and T fitted by least squares to the mean loop of 108 normal
# recordings of PTB-XL, of whose power they explain 99.8 %. Averaging lowers and blurs: QRS and T were made as high as
# in the median recording, QRS narrower, and both turned by some degrees to its axis.
MEASURED_BEAT = SINUS_BEAT | {
    "Q": (-24.7, 6.3, -0.075, -0.025, -0.235),
    "R apex": (-14.0, 6.3, 0.12, 0.015, -0.30),
    "R wall": (1.0, 9.2, 1.40, 0.76, 0.66),
    "S": (16.0, 10.3, -0.15, -0.055, 0.70),
    "ST": (115, 49, 0.015, 0.012, -0.084),
    "T rise": (244, 51.5, 0.26, 0.07, -0.32),
    "T fall": (269.5, 36.9, 0.13, 0.12, 0.075),
}
N_ATRIAL = 2
FIRST_REPOLARISATION = list(SINUS_BEAT).index("ST")


@dataclass(frozen=True)
class Condition:
    """What sets a class apart from the normal ECG."""

    rate: tuple = (60, 99)  # beats per minute, of the sinus node where there is one
    pr: tuple = (0.12, 0.20)  # s, onset of P to onset of QRS
    rhythm: str = "sinus"  # a key of RHYTHMS
    breathing: tuple = (0.0, 0.0)  # least share by which breathing changes the RR interval
    severity: tuple = (0.25, 1.05)  # share of the way from the normal beat to `waves`
    waves: dict = field(default_factory=dict)  # lobes that replace those of SINUS_BEAT
    measured: dict = field(default_factory=dict)  # what it adds besides to dipoles of MEASURED_BEAT, mV
    onset: float = 0.045  # s from the onset of QRS to the R peak
    symbol: str = "N"  # of its beats, in annotations
    note: str = "(N"  # of its rhythm, in annotations


CONDITIONS = {
    "normal": Condition(),
    "sinus bradycardia": Condition(rate=(40, 59), note="(SBR"),
    "sinus tachycardia": Condition(rate=(101, 150)),
    "atrial fibrillation": Condition(rate=(60, 130), rhythm="fibrillation", note="(AFIB"),
    "premature ventricular contractions": Condition(rhythm="ectopy"),
    "first-degree AV block": Condition(rate=(55, 90), pr=(0.205, 0.32), note="(BI"),
    "left bundle branch block": Condition(
        severity=(0.6, 1.1),
        symbol="L",
        waves={  # no septal q; the left ventricle is reached late, through muscle; discordant ST and T
            "Q": (-28, 13, 0.20, 0.10, -0.08),
            "R apex": (2, 16, 0.65, 0.35, 0.55),
            "R wall": (36, 17, 0.35, 0.15, 1.00),
            "S": (68, 16, 0.75, 0.10, 0.75),
            "late": (98, 13, 0.15, 0.0, 0.25),
            "ST": (150, 42, -0.10, -0.03, -0.22),
            "T rise": (270, 48, -0.22, -0.08, -0.25),
            "T fall": (318, 34, -0.22, -0.06, -0.22),
        },
        measured={"R wall": (-0.25, -0.10, 0.45), "S": (-0.20, 0.0, 0.30), "late": (-0.10, 0.0, -0.15)},
    ),
    "right bundle branch block": Condition(
        severity=(0.6, 1.1),
        symbol="R",
        waves={  # a normal start; the right ventricle, right and in front, comes late
            "R wall": (12, 11, 0.75, 0.45, 0.45),
            "S": (44, 13, -0.20, 0.0, -0.25),
            "late": (76, 18, -0.52, -0.02, -0.62),
            "ST": (140, 40, 0.05, 0.0, 0.08),
            "T rise": (250, 48, 0.20, 0.11, 0.08),
            "T fall": (300, 32, 0.26, 0.14, 0.10),
        },
        measured={"R wall": (-0.15, -0.15, -0.15), "late": (-0.25, -0.05, -0.20)},
    ),
    "anterior myocardial infarction": Condition(
        waves={  # the front wall is silent: the first forces go back; ST lifted in front; T inverted
            "Q": (-26, 10, -0.10, 0.05, 0.30),
            "R apex": (-3, 11, 0.30, 0.45, 0.45),
            "ST": (125, 45, 0.08, 0.02, -0.24),
            "T rise": (235, 45, 0.02, 0.08, -0.10),
            "T fall": (295, 34, -0.08, 0.12, 0.24),
        },
        measured={"R wall": (-0.35, -0.10, 0.35), "ST": (-0.03, 0.0, 0.08)},
    ),
    "inferior myocardial infarction": Condition(
        waves={  # the lower wall is silent: the first forces go up; ST lifted below; T inverted
            "Q": (-26, 12, -0.02, -0.60, -0.15),
            "R apex": (0, 10, 0.80, 0.15, -0.25),
            "R wall": (14, 11, 0.70, 0.42, 0.55),
            "ST": (125, 45, -0.06, 0.17, 0.05),
            "T rise": (240, 45, 0.14, 0.05, -0.10),
            "T fall": (295, 34, 0.20, -0.26, -0.12),
        },
    ),
    "left ventricular hypertrophy": Condition(
        waves={  # more muscle, left and behind; ST and T strained the other way
            "R apex": (-3, 11, 1.15, 0.65, -0.20),
            "R wall": (15, 13, 1.25, 0.55, 1.05),
            "S": (40, 11, -0.05, -0.12, 0.45),
            "ST": (125, 42, -0.09, -0.04, -0.08),
            "T rise": (240, 48, -0.06, -0.03, -0.14),
            "T fall": (290, 32, -0.18, -0.08, -0.14),
        },
        measured={"R wall": (0.30, 0.05, 0.15), "S": (-0.20, -0.10, 0.35)},
    ),
    # Classes from here on have to be asked for, so that the default data sets stay what they were.
    "sinus arrhythmia": Condition(rate=(55, 85), breathing=(0.09, 0.20)),
    "premature atrial contractions": Condition(rhythm="atrial ectopy"),
    "paroxysmal atrial fibrillation": Condition(rate=(65, 95), rhythm="paroxysm"),
    "atrial flutter": Condition(rate=(60, 160), rhythm="flutter", note="(AFL"),
    "supraventricular tachycardia": Condition(rate=(150, 210), rhythm="reentry", symbol="S", note="(SVTA"),
    "ventricular tachycardia": Condition(rate=(60, 100), rhythm="ventricular tachycardia", note="(VT"),
    "second-degree AV block": Condition(rate=(60, 90), pr=(0.15, 0.20), rhythm="Wenckebach", note="(BII"),
    "third-degree AV block": Condition(rate=(65, 100), rhythm="dissociation", note="(B3"),
    "ventricular paced rhythm": Condition(
        rate=(60, 85),
        pr=(0.12, 0.18),
        severity=(0.9, 1.1),
        onset=0.062,
        symbol="/",
        note="(P",
        waves={  # from the apex of the right ventricle: leftward, up and back, slowly
            "Q": (-32, 14, 0.15, -0.18, -0.05),
            "R apex": (2, 18, 0.45, -0.42, 0.45),
            "R wall": (36, 19, 0.45, -0.46, 0.80),
            "S": (70, 18, 0.30, -0.32, 0.55),
            "late": (98, 14, 0.05, -0.10, 0.15),
            "ST": (150, 42, -0.06, 0.07, -0.16),
            "T rise": (270, 48, -0.16, 0.18, -0.24),
            "T fall": (318, 34, -0.16, 0.17, -0.20),
        },
    ),
    "Wolff-Parkinson-White pattern": Condition(
        rate=(60, 95),
        pr=(0.075, 0.11),
        severity=(0.8, 1.1),
        onset=0.075,
        note="(PREX",
        waves={  # a bypass on the left: the delta wave goes forward, down and left; T opposes it
            "Q": (-40, 19, 0.32, 0.24, -0.32),
            "R apex": (-8, 15, 0.75, 0.50, -0.55),
            "R wall": (13, 15, 0.60, 0.40, 0.10),
            "S": (36, 11, 0.00, -0.05, 0.15),
            "ST": (125, 42, -0.05, -0.04, 0.05),
            "T rise": (240, 48, 0.02, 0.02, 0.05),
            "T fall": (290, 34, -0.05, -0.02, 0.08),
        },
    ),
    "left anterior fascicular block": Condition(
        severity=(0.8, 1.1),
        waves={  # first down and right, then all up and left
            "Q": (-28, 9, -0.16, 0.26, -0.20),
            "R apex": (-4, 11, 0.75, -0.10, -0.20),
            "R wall": (16, 12, 0.80, -0.52, 0.30),
            "S": (38, 11, -0.45, -0.45, 0.25),
        },
    ),
    "right ventricular hypertrophy": Condition(
        severity=(0.7, 1.1),
        waves={  # more muscle, right and in front; the right atrium too; strain in front
            "P right": (36, 16, 0.045, 0.15, -0.10),
            "Q": (-26, 8, 0.02, 0.02, -0.10),
            "R apex": (-3, 11, 0.20, 0.40, -0.65),
            "R wall": (14, 12, -0.45, 0.50, -0.55),
            "S": (38, 12, -0.60, 0.10, 0.15),
            "ST": (120, 42, 0.05, -0.02, 0.08),
            "T rise": (235, 48, 0.14, 0.05, 0.14),
            "T fall": (285, 32, 0.20, 0.08, 0.18),
        },
    ),
    "myocardial ischaemia": Condition(
        severity=(0.5, 1.1),
        waves={  # under the endocardium of the left ventricle: ST away from it, T flat or inverted
            "ST": (110, 46, -0.16, -0.11, 0.10),
            "T rise": (230, 46, -0.10, -0.06, 0.02),
            "T fall": (285, 34, -0.08, -0.06, 0.02),
        },
    ),
}
N_DEFAULT_CLASSES = 11
