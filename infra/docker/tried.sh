#!/bin/sh
# tried COMMAND ...: for schedulers that know success and failure alone, such as KubeRay.
# Exit code 3 of sdo, a refusal by the rules, is a normal answer: 0. Bad input (2) and a run that another driver works on (4)
# are not tried again; anything else is, twice, and goes on where it stopped.
for try in 1 2 3; do
    "$@"
    code=$?
    case $code in
        0 | 3) exit 0 ;;
        2 | 4) exit $code ;;
    esac
    [ "$try" = 3 ] || sleep "${TRIED_PAUSE:-30}"
done
exit $code
