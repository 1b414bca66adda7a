"""The numbers of the report: their names, what they are, and what is good."""

from typing import NamedTuple

NETWORKS = "networks"  # group of the metrics of published networks, whose rows come from the networks that are loaded


class Metric(NamedTuple):
    """A row of the report's table."""

    name: str
    group: str
    desired: str
    description: str


METRICS = (
    Metric(
        "sync",
        "lips",
        "1",
        "correlation of the mouth's opening with the true jaw, or without a truth with the sound's open vowels",
    ),
    Metric("lag", "lips", "0", "frames by which the mouth is late; looked for up to 8"),
    Metric("sync_at_lag", "lips", "1", "the correlation at that lag, without the first and the last 8 frames"),
    Metric("silence", "lips", "0", "opening in silence as a fraction of that in speech"),
    Metric("landmark_sync", "lips", "1", "`sync` of a drawn face by landmarks, which know nothing of its colours"),
    Metric("landmark_lag", "lips", "0", "`lag` by landmarks"),
    Metric("faces_found", "lips", "1", "fraction of frames in which the face is found"),
    Metric("head_sync", "body", "high", "correlation of the head's speed with its true one, or with loudness"),
    Metric("nod_sync", "body", "high", "correlation of the head's pitch with its true one, or with loudness"),
    Metric("brow_sync", "body", "high", "correlation of the brows' height with its true one, or with loudness"),
    Metric("jitter", "body", "as in the source", "trembling of the head, in percent of half its height"),
    Metric("identity", "identity", "1", "fraction of the drawn person's factors that are seen again, in any frame"),
    Metric("identity_drift", "identity", "0", "its change per 10 s"),
    Metric("color_drift", "drift", "as in the source", "change of the mean colour per 10 s, in levels of 255"),
    Metric("brightness_drift", "drift", "as in the source", "change of the brightness per 10 s, in levels of 255"),
    Metric(
        "sharpness_drift", "drift", "as in the source", "change of the Laplacian's variance per 10 s, relative to its mean"
    ),
    Metric(
        "seam", "breaks", "below 2", "step at chunk borders as a multiple of the usual step: the mean of a clip's borders"
    ),
    Metric("worst_seam", "breaks", "below 2", "the same: the largest of a clip's borders"),
    Metric("frozen", "breaks", "0", "fraction of frames that equal the previous one while the sound or the source moves"),
    Metric("flashes", "breaks", "0", "changes of brightness per 10 s that return within 5 frames"),
    Metric("largest_flash", "breaks", "0", "the largest of them, in levels of 255"),
    Metric("pose_follow", "following", "1", "how much the head's pose follows the source's (least squares)"),
    Metric("pose_copy", "following", "0", "how much it snaps to the pose of the chunk's reference"),
    Metric("head_follow", "following", "1", "correlation of the head's position and pose with the source's"),
    Metric("camera_follow", "following", "1", "correlation of the camera's motion with the source's, if that moves"),
    Metric(
        "camera_error", "following", "0", "difference of the camera's position from the source's, in percent of the height"
    ),
    Metric("outside_db", "following", "high", "PSNR against the source outside the speakers, in dB"),
    Metric("outside_loss_db", "following", "0", "dB by which that is below the VAE's own round trip"),
    Metric("wrong_speaker", "persons", "0", "movement of silent mouths as a fraction of the speakers'"),
    Metric(
        "wrong_speaker_rate",
        "persons",
        "below 0.1",
        "fraction of frames in which a silent mouth moves more than the speaker's",
    ),
)
