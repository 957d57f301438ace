#!/bin/sh
# The rows of the evidence table on full CIFAR-10, for a GPU: a robust teacher, then every student by every recipe.
#
#     sh examples/benchmarks/evidence.sh DATA [FOLDER FOR THE ROWS] [DEVICE]
#
# DATA is a CIFAR-10 folder. Rows that the folder has are left out, so that a run that was stopped goes on where it was;
# a row that fails leaves its error in the folder. At the end the table, with what is still open.
set -u
data=$1 rows=${2:-evidence-rows} device=${3:-cuda}
cd "$(dirname "$0")/../.."
mkdir -p "$rows"
export PYTHONPATH=.
teacher=$rows/teacher/student.safetensors

if [ ! -f "$teacher" ]; then
    python -m kdcompress train --recipe at --model resnet18 --data "$data" --eps 8/255 --epochs 50 --optimizer sgd \
        --attack-steps 10 --batch-size 256 --precision bf16 --device "$device" --out "$rows/teacher" --resume || exit
fi
row() { # STUDENT RECIPE SEED [OPTIONS]
    student=$1 recipe=$2 seed=$3
    shift 3
    name="cifar10 $student $recipe${2:+ as long as $2} $seed"
    [ -f "$rows/$name.json" ] || python examples/benchmarks/evidence.py row cifar10 "$student" "$recipe" --seed "$seed" \
        --teacher "$teacher" --data "$data" --device "$device" --rows "$rows" "$@" 2> "$rows/$name.err"
}
for seed in 0 1 2; do
    for student in resnet18 mobilenetv2 convnext; do
        for recipe in jacobian rslad rslad-4-z rslad-1-z+jacobian rslad-3 kd kdiga-noise igdm adaad at trades fast; do
            row "$student" "$recipe" "$seed"
        done
        for other in jacobian rslad-4-z; do row "$student" at "$seed" --as-long-as $other; done
    done
    row mobilenetv2 kd+jacobian "$seed" # deep and narrow: fresh, the gradient term may flatten it
done
python examples/benchmarks/evidence.py table --rows "$rows"
