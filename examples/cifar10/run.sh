#!/usr/bin/env bash
# Both pairs of examples/cifar10/README.md, from data to reports. Usage: run.sh DATA RESNET4B OUT [IMAGES]
#   DATA      CIFAR-10 as an image folder or tar; RESNET4B the published checkpoint; OUT a new folder for the runs
#   IMAGES    test images for AutoAttack (default 200)
set -euo pipefail
data=$1 published=$2 out=$3 images=${4:-200}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

teacher=(--teacher "$published" --teacher-arch "$here/resnet4b.py:resnet4b"
  --teacher-mean 0.4914,0.4822,0.4465 --teacher-std 0.2471,0.2435,0.2616)
student=(--student resnet18 --student-arg layers=1,1,1,1 --student-arg channels=16,24,32,40
  --student-arg act_layer=silu --student-arg stem_type=deep --student-arg stem_width=8 --student-stride 32)
common=(--data "$data" --eps 2/255)
budget=(--train-images 20000 --epochs 10 --lr 0.01)

# The published teacher alone.
kdcompress evaluate "${teacher[@]}" "${common[@]}" --attack pgd-20 --images 1000 --report "$out/resnet4b.json"

# Pair 1: the published teacher, KD and KDIGA, same seed and steps.
kdcompress distill "${teacher[@]}" "${student[@]}" "${common[@]}" "${budget[@]}" --iga-weight 0 --out "$out/pair1-kd"
kdcompress distill "${teacher[@]}" "${student[@]}" "${common[@]}" "${budget[@]}" --out "$out/pair1-kdiga"
for recipe in kd kdiga; do
  kdcompress evaluate "$out/pair1-$recipe/student.safetensors" "${teacher[@]}" "${common[@]}" --images "$images" \
    --report "$out/pair1-$recipe.json"
done

# Pair 2: a teacher trained here, more than four times the student's size.
kdcompress train --recipe at --model resnet18 --model-arg layers=1,1,1,1 --model-arg channels=32,48,64,96 \
  --model-arg act_layer=silu --model-arg stem_type=deep --model-arg stem_width=16 --model-stride 32 --attack-steps 3 \
  "${common[@]}" "${budget[@]}" --out "$out/teacher2"
teacher=(--teacher "$out/teacher2/student.safetensors")
kdcompress distill "${teacher[@]}" "${student[@]}" "${common[@]}" "${budget[@]}" --iga-weight 0 --out "$out/pair2-kd"
kdcompress distill "${teacher[@]}" "${student[@]}" "${common[@]}" "${budget[@]}" --out "$out/pair2-kdiga"
for recipe in kd kdiga; do
  kdcompress evaluate "$out/pair2-$recipe/student.safetensors" "${teacher[@]}" "${common[@]}" --images "$images" \
    --report "$out/pair2-$recipe.json"
done
