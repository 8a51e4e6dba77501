#!/bin/sh
# Renders the synthetic people of the experiments, each set with a seed of its own (docs/reference/synthetic.md):
#   scripts/render_people.sh KIT FOLDER [SET ...]      sets: embedded gate train400 test1000 people-1k thermal
set -eu
kit=$1 folder=$2
shift 2
synth() {
    name=$1
    shift
    python -m dapg data synth --assets "$kit" --out "$folder/$name" --workers "${WORKERS:-1}" "$@"
}
packed="--archive true --encoding webp --quality 70"
for set in "${@:-embedded}"; do
    case $set in
    embedded) synth embedded $packed --seed 3 --persons 450 --validation_persons 50 --test_persons 200 --unlabelled 4000 \
        --unlabelled_persons 1000 --unlabelled_height 128 --unlabelled_width 64 ;;
    people-1k) synth people-1k $packed --seed 4 --persons 1300 --validation_persons 100 --test_persons 200 \
        --unlabelled 20000 --unlabelled_persons 5000 ;;
    gate) synth gate $packed --seed 5 --persons 200 --validation_persons 0 --test_persons 200 ;;
    test1000) synth test1000 $packed --seed 6 --persons 1000 --validation_persons 0 --test_persons 1000 ;;
    train400) synth train400 $packed --seed 7 --persons 400 --validation_persons 0 --test_persons 0 ;;
    thermal) synth thermal --style regdb --seed 8 --persons 412 --height 128 --width 64 ;;
    *) echo "no set is called $set" >&2 && exit 2 ;;
    esac
done
