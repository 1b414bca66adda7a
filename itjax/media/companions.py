"""The names of the files that may be next to a video NAME.mp4, such as its caption NAME.txt."""

CAPTION_SUFFIX = ".txt"
BOXES_SUFFIX = ".json"  # positions of two persons
VOICE_SUFFIXES = (".1.wav", ".2.wav")  # a voice file per person
REGION_VIDEO_SUFFIX = ".region.mp4"  # a video that is bright where the loss may have a larger weight
REGION_SUFFIXES = (REGION_VIDEO_SUFFIX, ".region.png")
COMPANION_SUFFIXES = (CAPTION_SUFFIX, BOXES_SUFFIX, *VOICE_SUFFIXES, *REGION_SUFFIXES)
