#!/bin/busybox sh
# The first process of the Linux that is Quire's host under ENGINE=nested. It does what it is told on
# COM1, line by line. Each line of its own begins with `host: `; COM2 is Quire's.

/bin/busybox mkdir -p /bin /proc /sys /var/tmp /tmp
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
stty -F /dev/ttyS0 echo -onlcr
stty -F /dev/ttyS1 raw -echo 115200
# QEMU may have more memory than there is: what Quire does not touch is not given.
echo 1 >/proc/sys/vm/overcommit_memory
echo "host: linux $(uname -r)"

# kvm [PARAMETER=VALUE]...: (re)loads KVM.
kvm() {
    rmmod kvm_intel 2>/dev/null
    [ -d /sys/module/kvm ] || { insmod /irqbypass.ko && insmod /kvm.ko ignore_msrs=0; } || return
    insmod /kvm-intel.ko nested=1 "$@"
}

# quire IMAGE MEMORY CPU [OPTION]...: starts QEMU, and tells its status when it ends.
quire() {
    local image=$1 memory=$2 cpu=$3
    shift 3
    {
        qemu-system-x86_64 -accel kvm -cpu "$cpu" -m "$memory" -nodefaults -no-user-config \
            -display none -vga none -monitor none -no-reboot -serial /dev/ttyS1 \
            -device isa-debug-exit,iobase=0xf4,iosize=4 \
            -drive "file=/$image,format=raw,if=virtio,readonly=on" "$@" </dev/null
        echo "host: qemu ended with $?"
    } &
}

while read -r line; do
    eval "$line"
    echo "host: did $?"
done
