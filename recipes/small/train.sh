#!/usr/bin/env bash
# Trains the small model from nothing: recipes/small/train.sh [OUT]
#
# Each stage continues where it was when the script is started again, and is skipped once it is finished. On a GPU the stages
# before the DiT take about five minutes and a refinement of the VAE, which was not measured there; on two CPU cores hours.
# Environment: CLIPS, PAIRS (drawn clips of one and of two people: above 16 together), STEPS (above 200), BATCH (of the DiT).
set -euo pipefail
out=${1:-runs/small}
mkdir -p "$out"
if python -c 'import sys, jax; sys.exit(jax.default_backend() == "cpu")'; then
  speech="--steps 4000 --batch 32"
  vae="--steps 3400 --image_steps 700 --images 64 --clips 16 --clip_frames 17 --dtype float32"
  refined="--steps 1000 --clips 16 --clip_frames 17 --dtype float32"
  encoders="--steps 1500"
  dit="--batch ${BATCH:-32} --dtype bfloat16"
  clips=${CLIPS:-2700} pairs=${PAIRS:-250} steps=${STEPS:-20000}
else
  speech="--steps 2500 --batch 16"
  vae="--steps 6000 --image_steps 600"
  refined="--steps 480"
  encoders="--steps 400"
  dit="--batch ${BATCH:-8} --dtype float32"
  clips=${CLIPS:-640} pairs=${PAIRS:-64} steps=${STEPS:-4000}
fi
# shellcheck disable=SC2086  # the flags are words
{
  python -m itjax.training.speech_encoder --out "$out/speech" $speech
  python -m itjax.training.vae --out "$out/vae" --dim 12 $vae
  python -m itjax.training.vae --out "$out/refined" --start "$out/vae" --seed 1 $refined
  python -m itjax.training.contrastive --out "$out/encoders" $encoders
  [ -d "$out/initial" ] || python -m itjax.commands.assemble --speech_encoder "$out/speech" --vae "$out/refined" \
    --encoders "$out/encoders" --output "$out/initial"
  python -m itjax.preparation.drawn "$out/data" --checkpoint "$out/initial" --clips "$clips" --two_person_clips "$pairs" \
    --seconds 4.2 --chunk_stride 20 # encoding takes the time: more people instead of more of each
  python train.py small --data "$out/data" --checkpoint "$out/initial" --run "$out/dit" --steps "$steps" \
    --optimizer.name muon --optimizer.decay-steps "$steps" $dit
}
echo "trained: $out/dit. Measure it: python recipes/small/measure.py $out/measured --checkpoint $out/dit"
echo "Pack it: python -m itjax.commands.pack $out/dit --card recipes/small/MODEL_CARD.md --output itjax/small/weights"
