"""Measures in plain words, in the order in which a report shows them. What is not here shows its
protocol alone."""

from typing import NamedTuple


class Words(NamedTuple):
    title: str
    meaning: str


MEASURES = {
    "kid_mobilenetv2": Words(
        "Distance to the real photographs (KID)",
        "How far the generated pictures, as a set, are from the real ones; 0 is no difference. Read it "
        "beside the noise floor: a distance below the floor is none that this many photographs can show.",
    ),
    "kid_mobilenetv2_base": Words(
        "The same distance before this training",
        "Of the generator that this training started from. Training has helped if its interval lies "
        "above the one of the trained generator.",
    ),
    "kid_noise_floor": Words(
        "Noise floor of that distance",
        "What the same measure says of two halves of the real photographs, where the true answer is "
        "no difference. One split in twenty says more than this.",
    ),
    "precision": Words(
        "Precision: do generated faces look real?",
        "Share of generated pictures that lie among the real ones. Two halves of one set would not "
        "reach 1 either: compare runs with equal numbers of pictures only.",
    ),
    "recall": Words(
        "Recall: are all kinds of faces made?",
        "Share of real photographs that the generator can come near to. Low recall beside high "
        "precision means that few kinds of faces are made over and over.",
    ),
    "neighbour_distance": Words(
        "Does it copy the training photographs?",
        "Distance from a generated face to the nearest photograph, in units of the distance from one "
        "photograph to the next. About 1 is as it should be; near 0, training photographs are repeated.",
    ),
    "dish_js": Words(
        "Difference in the mix of severities (DISH)",
        "How far the histogram of cleft severity among generated faces is from that of the training "
        "photographs, from 0 (the same mix) to 1 (no severity in common).",
    ),
    "dish_noise_floor": Words(
        "Noise floor of DISH",
        "The same between random halves of the training photographs; one split in twenty says more. "
        "Below it, the two mixes cannot be told apart.",
    ),
    "severity_r": Words(
        "Can the severity score be trusted?",
        "Correlation between the score that DISH rests on and the true severity, on faces where the "
        "truth is known; 1 is perfect agreement, 0 none.",
    ),
    "ppl2_wend": Words(
        "Smoothness of the generator (perceptual path length)",
        "How much the picture changes for a small step in the generator's space; lower is smoother. "
        "The size depends on the network that judges pictures: compare runs of this program only.",
    ),
    "ppl_wend_lpips_alexnet": Words(
        "Smoothness of the generator, by a smaller network",
        "Perceptual path length as a network small enough to ship sees it: lower is smoother. It stands "
        "on a scale of its own and compares with runs of this program only.",
    ),
    "eq_t": Words(
        "Do faces move as a whole?",
        "When the generator's input is moved by whole pixels, how exactly the picture moves with it, in "
        "decibels: 60 and more is nearly exact, below 30 details stick to their place.",
    ),
    "eq_t_frac": Words(
        "The same for moves of any size",
        "Moves by fractions of a pixel. The published measure uses other filters: compare runs of this "
        "program only.",
    ),
    "eq_r": Words(
        "Do faces turn as a whole?",
        "The same for turns by any angle. Only the variant 'r' is built for it; the paper's best, 't', "
        "scores low here by design.",
    ),
    "copies_flagged": Words(
        "Generated faces that look like a copy of one person",
        "Each is shown beside its photograph. No picture can be sampled from this run until somebody has "
        "judged every flagged pair.",
    ),
    "copies_false_alarm_rate": Words(
        "How often the search for copies errs",
        "Share of photographs of other people, none of them a copy, that the same search would flag.",
    ),
    "copies_held_out_alarm_rate": Words(
        "The same for people never trained on",
        "Share of generated faces flagged as copies of people whom the generator has never seen.",
    ),
    "copies_power_exact": Words(
        "Copies found when planted: unchanged",
        "Training photographs were put among the generated faces on purpose; the share that was found.",
    ),
    "copies_power_mirrored": Words(
        "Copies found when planted: mirrored", "The same with mirror images of photographs."
    ),
    "copies_power_jpeg": Words(
        "Copies found when planted: saved again", "The same after saving them as JPEG."
    ),
    "copies_power_blended": Words(
        "Copies found when planted: blended",
        "The same with 70 % photograph and 30 % generated face laid over each other.",
    ),
    "fd_mobilenetv2": Words(
        "Fréchet distance, not comparable with FID",
        "The older relative of KID. It grows as photographs get fewer, also between equal sets, so it "
        "means something only beside its own noise floor, and is no published FID: other features.",
    ),
    "fd_noise_floor": Words(
        "Noise floor of the Fréchet distance",
        "The same between two halves of the real photographs. Halves are smaller sets, so this is an "
        "upper bound of what no difference looks like.",
    ),
    "spot_ratio_r": Words(
        "Do the spots in the translated picture agree with the real UV photograph?",
        "Correlation of the share of the cheeks that is spot, in people never trained on: 1 is perfect "
        "order from the least to the most spotted, 0 none. It does not see a constant excess: read the "
        "bias as well.",
    ),
    "spot_ratio_r_color": Words(
        "The same without any translation",
        "Spots counted on the color photograph itself. Translation is worth its effort only if its "
        "correlation is higher than this one.",
    ),
    "spot_ratio_r_device_v1": Words(
        "The same for version 1, trained on pairs only",
        "On the same photographs from the dedicated device. Version 2 should lose next to nothing here.",
    ),
    "spot_ratio_r_phone": Words(
        "The same for photographs taken with a phone",
        "Correlation with the true spots when the color photograph comes from a phone instead of the "
        "dedicated device.",
    ),
    "spot_ratio_r_phone_v1": Words(
        "Phone photographs, by version 1",
        "On the same phone photographs, by the network trained on the device's pairs only.",
    ),
    "spot_ratio_r_phone_color": Words(
        "Phone photographs without any translation",
        "Spots counted on the phone's color photograph itself.",
    ),
    "spot_ratio_r_gain": Words(
        "How much better than counting on the color photograph?",
        "Correlation of the translated picture minus that of the color photograph, on the same people. "
        "Better is shown where the whole interval lies above 0.",
    ),
    "spot_ratio_r_phone_gain": Words(
        "How much better is version 2 than version 1 on phone photographs?",
        "Correlation of version 2 minus that of version 1, on the same people. Better is shown where the "
        "whole interval lies above 0.",
    ),
    "spot_ratio_ccc": Words(
        "Are the values equal, and not only in the same order?",
        "Lin's concordance: 1 only if every translated picture gives the same share of spots as the real "
        "UV photograph. Too many or too few spots throughout lower it, unlike the correlation.",
    ),
    "spot_ratio_bias": Words(
        "Too many or too few spots on average",
        "Mean of translated minus real share of the cheeks that is spot. 0 is right, above 0 means too "
        "many spots; 0.01 is one hundredth of the cheek.",
    ),
    "spot_ratio_limit_low": Words(
        "Error of a single person: lower limit",
        "For 95 of 100 people the translated share minus the real one lies between this limit and the "
        "upper one.",
    ),
    "spot_ratio_limit_high": Words(
        "Error of a single person: upper limit",
        "If an error of this size would change what you tell a patient, do not rely on one picture.",
    ),
    "spot_dice": Words(
        "Do spots lie at the right place?",
        "How much the areas of translated and true spots cover each other: 1 is exactly the same area, "
        "0 no spot in common.",
    ),
    "spot_iou": Words(
        "The same, by a stricter count",
        "Common area divided by all area that is spot in either picture; 1 is exactly the same.",
    ),
    "spot_precision": Words(
        "Are the shown spots real?",
        "Share of spots in the translated picture that have a true spot at the same place. The rest is "
        "invented.",
    ),
    "spot_recall": Words(
        "Are the real spots shown?",
        "Share of the true spots that the translated picture shows at the same place. The rest is missed.",
    ),
    "hallucination": Words(
        "Spots invented on clear skin",
        "Share of truly spot-free skin on which the translated picture shows a spot; 0 is right.",
    ),
    "skin_ssim": Words(
        "Likeness of the picture: structure (SSIM)",
        "How alike light and dark patterns of translated and real UV photograph are inside the skin; 1 "
        "is the same. It says little about small spots.",
    ),
    "skin_psnr": Words(
        "Likeness of the picture: error in decibels (PSNR)",
        "Inside the skin; higher is nearer to the real UV photograph, 6 dB more is half the error.",
    ),
    "skin_mae": Words(
        "Likeness of the picture: error in gray levels (MAE)",
        "Mean difference of brightness inside the skin; 0 is the same, 255 black against white.",
    ),
    "skin_lpips": Words(
        "Likeness of the picture as people see it (LPIPS)",
        "A network's measure of how different the two pictures look inside the skin; 0 is the same. "
        "Compare runs of this program only.",
    ),
    "seam_error": Words(
        "Are seams visible where the pieces meet?",
        "Large photographs are translated in overlapping pieces. How much the result depends on where the "
        "pieces lie, in gray levels of 255; below about 1, no seam can be seen.",
    ),
    "video_accuracy": Words(
        "Before or after dialysis: how many videos are told right?",
        "Share of videos of days that the patient's own model has never seen. 0.5 is a toss-up.",
    ),
    "video_accuracy_scratch": Words(
        "The same without the other patients",
        "The same small models, begun from random weights instead of what many other patients showed.",
    ),
    "video_accuracy_frozen": Words(
        "The same with a straight line only",
        "The network learned from many patients is left as it is; of each patient only a linear rule on "
        "its features is learned.",
    ),
    "video_accuracy_baseline_majority": Words(
        "The same by saying the more frequent answer always",
        "Needs no picture. Whatever is worth its effort is above this.",
    ),
    "video_accuracy_baseline_color_histogram": Words(
        "The same by the colors of the picture alone",
        "If this is high, light or clothes give the answer away and no number here says anything of edema.",
    ),
    "video_accuracy_baseline_background": Words(
        "The same by what surrounds the face alone",
        "From the outermost edge of each frame. It should be a toss-up.",
    ),
    "video_accuracy_gain_scratch": Words(
        "How much do the other patients help?",
        "Share of videos told right minus that of models begun from random weights, on the same videos. "
        "Better is shown where the whole interval lies above 0.",
    ),
    "video_auc": Words(
        "Order of the videos from least to most edema (AUC)",
        "How often a video before dialysis scores above one after it: 1 always, 0.5 by chance.",
    ),
    "mae_kg": Words(
        "Body weight read from the face: mean error in kg",
        "On days that the patient's own model has never seen. Compare with the two lines on means below: "
        "who only knows a patient's usual weight errs by as much as they say.",
    ),
    "mae_kg_scratch": Words(
        "The same without the other patients", "The same small models, begun from random weights."
    ),
    "mae_kg_frozen": Words(
        "The same with a straight line only", "A linear rule on features that are left as they are."
    ),
    "mae_kg_baseline_training_mean": Words(
        "The same by saying the patient's mean weight always",
        "The mean of the days that were learned from. No picture is looked at.",
    ),
    "mae_kg_baseline_class_mean_uses_label": Words(
        "The same if somebody says whether it is before or after",
        "The mean weight of the days learned from, before or after as it truly is. This sees the answer: "
        "no method has to beat it.",
    ),
    "mae_kg_gain_scratch": Words(
        "How many kg do the other patients save?",
        "Mean error minus that of models begun from random weights, on the same videos. Better is shown "
        "where the whole interval lies below 0.",
    ),
    "mae_kg_change": Words(
        "Error of what one dialysis took out",
        "Mean error of the difference between before and after, in kg: what a scale would be asked.",
    ),
    "r_kg_within": Words(
        "Does the estimate follow a patient's ups and downs?",
        "Correlation with the measured weight after taking out each patient's mean; 1 is perfect order.",
    ),
    "interval_coverage": Words(
        "Do the intervals keep their promise?",
        "Share of measured weights inside intervals that should hold 9 of 10.",
    ),
    "share_answered": Words(
        "How many videos get an answer?",
        "The others show a face unlike all that the patient's model learned from: no estimate is given.",
    ),
    "accuracy": Words(
        "How many photographs are told right?",
        "Share of photographs of people whom the network has never seen. Those of one person resemble each "
        "other: the interval counts people, not photographs.",
    ),
    "accuracy_published_protocol": Words(
        "The same by the published protocol",
        "What the paper's number compares with. For labels of photographs (smiles) its folds have one person "
        "in training and test at once, so that it is too high: read the line above it.",
    ),
    "accuracy_shuffled_labels": Words(
        "The same with labels dealt out anew",
        "A control: nothing can be learned, and the answer should be a toss-up. If its interval lies above "
        "0.5, the protocol lets something through.",
    ),
    "accuracy_all_decided": Words(
        "The same with unclear photographs",
        "Also those on whose label the voters were of two minds, but for ties.",
    ),
    "accuracy_truth": Words(
        "The same by the truth instead of the vote",
        "Only a phantom knows it.",
    ),
    "accuracy_baseline_majority": Words(
        "The same by saying the more frequent answer always",
        "Needs no picture. Whatever is worth its effort is above this.",
    ),
    "accuracy_baseline_mandible_gradient_boosting": Words(
        "The same by the jaw's outline: boosted trees",
        "75 gray values along the lower jaw, without a network.",
    ),
    "accuracy_baseline_mandible_random_forest": Words(
        "The same by the jaw's outline: a random forest", "As published, without a network."
    ),
    "accuracy_baseline_pixels": Words(
        "The same by a straight line on pixels",
        "A linear rule on small gray pictures. If this is high, the task is easy and proves little.",
    ),
    "person_accuracy": Words(
        "How many people are told right?",
        "By the mean over the photographs of each.",
    ),
    "sensitivity": Words(
        "Of those with label 1, how many are found?",
        "For sex, women; for smiles, smiles. At a probability of one half.",
    ),
    "specificity": Words(
        "Of those with label 0, how many are told so?", "At a probability of one half."
    ),
    "sensitivity_at_validation": Words(
        "Of those with label 1, how many are found at the operating point?",
        "The point was chosen for a required sensitivity on other people; this is what it gives on people "
        "never seen.",
    ),
    "specificity_at_validation": Words(
        "And of those with label 0, how many are told so at that point?",
        "What the required sensitivity costs.",
    ),
    "auroc": Words(
        "Order of the photographs (area under the ROC curve)",
        "How often one of label 1 scores above one of label 0: 1 always, 0.5 by chance.",
    ),
    "auprc": Words(
        "Precision over all thresholds (average precision)",
        "1 is perfect; the share of label 1 is what chance gives.",
    ),
    "brier": Words(
        "Error of the probabilities (Brier score)",
        "Mean squared; 0 is right and sure, 0.25 is saying one half always.",
    ),
    "ece": Words(
        "Do probabilities keep their word? (calibration error)",
        "Of those told 80 %, about 80 of 100 should be so. 0 is exact; by chance alone it is as large as the "
        "line below says.",
    ),
    "ece_floor": Words(
        "Noise floor of the calibration error",
        "What probabilities that keep their word exactly would show with as many photographs.",
    ),
    "gradcam_rank": Words(
        "Do heat maps show what was learned?",
        "Likeness with heat maps of a network whose weights are random: near 0 they depend on what was "
        "learned, near 1 they show the photograph only and explain nothing.",
    ),
    "people_needed": Words(
        "How many people are needed?",
        "For the error that was asked for, by a curve through the errors measured. Far beyond the people "
        "there were it is a guess; where the curve never comes so low, no number is enough.",
    ),
    "fit_a": Words(
        "Error that remains however many people there are",
        "a of err(n) = a + b / n^c.",
    ),
    "fit_b": Words("How much there is to learn from more people", "b of err(n) = a + b / n^c."),
    "fit_c": Words(
        "How fast the error falls with people",
        "c of err(n) = a + b / n^c: with 0.5, four times the people halve what is above a.",
    ),
}


def family(name: str) -> str:
    """Measures of one family stand on one scale: a number, its comparison and its noise floor."""
    if name.startswith("spot_ratio_r"):
        return "spot_ratio_gain" if name.endswith("_gain") else "spot_ratio_r"
    for start in ("video_accuracy", "mae_kg"):
        if name.startswith(start):
            return f"{start}_gain" if f"{start}_gain" in name else start
    if name.startswith("accuracy"):
        return "accuracy_gain" if name.startswith("accuracy_gain") else "accuracy"
    if name.endswith("_at_validation"):
        return name.removesuffix("_at_validation")
    for start in ("fit_a", "fit_b", "fit_c", "people_needed"):
        if name.startswith(start):
            return start
    if name == "ece_floor":
        return "ece"
    if name in ("spot_ratio_bias", "spot_ratio_limit_low", "spot_ratio_limit_high"):
        return "spot_ratio_difference"
    for end in ("_noise_floor", "_base", "_js", "_mobilenetv2"):
        name = name.removesuffix(end)
    return name.removesuffix("_mobilenetv2")


def place(name: str) -> tuple[int, str]:
    """Sort key: known measures in reading order, then the others by name."""
    known = list(MEASURES)
    return (known.index(name) if name in MEASURES else len(known), name)


def number(value: float | None, spread: float | None = None) -> str:
    """A number for people: two digits of its spread if that is known, else three of itself."""
    if value is None:
        return "not a finite number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1000):
        return f"{value:,.0f}".replace("-", "\N{MINUS SIGN}").replace(
            ",", "\N{NARROW NO-BREAK SPACE}"
        )
    size = spread if spread else abs(value) / 10
    if size == 0:
        return "0"
    if abs(value) < 1e-4 and size < 1e-4:
        return f"{value:.2e}".replace("-", "\N{MINUS SIGN}")
    digits = 0
    while size * 10**digits < 9.95 and digits < 6:
        digits += 1
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}").replace(
        ",", "\N{NARROW NO-BREAK SPACE}"
    )


def duration(seconds: float) -> str:
    """85 -> '1 min 25 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
