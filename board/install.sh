#!/bin/sh
# Installs varved from its tarball: the binary, a board's configuration, the user, and what the init system wants.
#
#   board/install.sh --board raspberrypi              on the board, as root
#   board/install.sh --board imx6ull-nand --root DIR  into the root file system of an image that is being built
#   board/install.sh --uninstall                      takes away what it brought; readings and configuration stay
#
# It may be run again at any time: a configuration that is there is kept, the newer profile is laid beside it as .new.
# POSIX sh and busybox; nothing else is needed.
set -eu

usage() {
	cat <<'END'
usage: install.sh [--board NAME] [--root DIR] [--prefix DIR] [--binary FILE] [--init KIND] [--uninstall]

  --board NAME   whose profile becomes /etc/varved/varved.toml; needed where there is none yet
  --root DIR     install into this folder instead of /; nothing is started, users are written to its etc/passwd
  --prefix DIR   the binary goes to DIR/bin; default /usr
  --binary FILE  the binary; default: the one that lies beside or above this script
  --init KIND    systemd, procd, sysv or none; default: what is there
  --uninstall    remove the program; /etc/varved, the readings and the user stay
END
}

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

say() {
	echo "install.sh: $*"
}

here=$(cd "$(dirname "$0")" && pwd)
board=
root=
prefix=/usr
binary=
init=
uninstall=

while [ $# -gt 0 ]; do
	case $1 in
		--board | --root | --prefix | --binary | --init)
			[ $# -ge 2 ] || fail "$1 wants a value; --help tells more"
			case $1 in
				--board) board=$2 ;;
				--root) root=$2 ;;
				--prefix) prefix=$2 ;;
				--binary) binary=$2 ;;
				--init) init=$2 ;;
			esac
			shift 2
			;;
		--uninstall) uninstall=1; shift ;;
		-h | --help) usage; exit 0 ;;
		*) usage >&2; exit 64 ;;
	esac
done

case $prefix in
	/*) prefix=${prefix%/} ;;
	*) fail "--prefix $prefix: it must begin with /" ;;
esac
if [ -n "$root" ]; then
	[ -d "$root" ] || fail "--root $root: there is no such folder; make it first"
	root=$(cd "$root" && pwd)
	[ "$root" = / ] && root=
fi
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run it as root, or give --root DIR"

# The running system's init, or that of the image.
find_init() {
	if [ -z "$root" ] && [ -d /run/systemd/system ]; then
		echo systemd
	elif [ -n "$root" ] && { [ -e "$root/lib/systemd/systemd" ] || [ -e "$root/usr/lib/systemd/systemd" ]; }; then
		echo systemd
	elif [ -e "$root/etc/rc.common" ]; then
		echo procd
	elif [ -d "$root/etc/init.d" ]; then
		echo sysv
	else
		echo none
	fi
}

[ -n "$init" ] || init=$(find_init)
case $init in
	systemd | procd | sysv | none) ;;
	*) fail "--init $init: it is systemd, procd, sysv or none" ;;
esac

# A packager's folders with the packager's prefix, the administrator's with any other.
if [ "$prefix" = /usr ]; then
	units=/usr/lib/systemd/system sysusers=/usr/lib/sysusers.d tmpfiles=/usr/lib/tmpfiles.d
else
	units=/etc/systemd/system sysusers=/etc/sysusers.d tmpfiles=/etc/tmpfiles.d
fi
# Where scripts are called by busybox's rcS they need a number.
if [ -e "$root/etc/init.d/rcS" ] && [ ! -e "$root/usr/sbin/update-rc.d" ] && [ "$init" = sysv ]; then
	script=/etc/init.d/S60varved
else
	script=/etc/init.d/varved
fi
if [ -d "$root/lib/udev" ]; then
	rules=/lib/udev/rules.d/60-varved.rules
else
	rules=/usr/lib/udev/rules.d/60-varved.rules
fi
# OpenWrt keeps /var in RAM.
if [ "$init" = procd ]; then
	state=/srv/varved
else
	state=/var/lib/varved
fi

# put MODE SOURCE DESTINATION: a whole file or none, in a folder that is made where it is missing.
put() {
	mkdir -p "$(dirname "$root$3")"
	cp "$2" "$root$3.part"
	chmod "$1" "$root$3.part"
	mv -f "$root$3.part" "$root$3"
}

# The same with the binary's place put right.
put_script() {
	mkdir -p "$(dirname "$root$3")"
	sed "s,/usr/bin/varved,$prefix/bin/varved,g" "$2" >"$root$3.part"
	chmod "$1" "$root$3.part"
	mv -f "$root$3.part" "$root$3"
}

if [ -n "$uninstall" ]; then
	if [ -z "$root" ]; then
		case $init in
			systemd) systemctl disable --now varved.service varved-power-fail.service >/dev/null 2>&1 || : ;;
			procd | sysv) [ ! -x "$script" ] || "$script" stop || : ;;
		esac
		case $init in
			procd) [ ! -x "$script" ] || "$script" disable || : ;;
		esac
	fi
	for file in "$prefix/bin/varved" "$units/varved.service" "$units/varved-power-fail.service" "$sysusers/varved.conf" \
		"$tmpfiles/varved.conf" "$script" "$rules"; do
		rm -f "$root$file"
	done
	if [ -z "$root" ]; then
		[ "$init" != systemd ] || systemctl daemon-reload || :
		! command -v update-rc.d >/dev/null || [ "$init" != sysv ] || update-rc.d varved remove >/dev/null || :
	fi
	say "removed. Left alone: the readings in $root$state, the configuration in $root/etc/varved, the user varved."
	say "To let go of the readings too: rm -r $root$state"
	exit 0
fi

# The binary.
if [ -z "$binary" ]; then
	for candidate in "$here/varved" "$here/../varved" "$here/bin/varved" "$here/../bin/varved"; do
		if [ -f "$candidate" ]; then
			binary=$candidate
			break
		fi
	done
fi
[ -n "$binary" ] || fail "there is no binary beside or above $here; give --binary FILE"
[ -f "$binary" ] || fail "--binary $binary: there is no such file"

# The profile.
config=/etc/varved/varved.toml
if [ -n "$board" ]; then
	profile=$here/$board/varved.toml
elif [ -e "$root$config" ]; then
	profile=
else
	profile=none
fi
if [ "$profile" = none ] || { [ -n "$profile" ] && [ ! -f "$profile" ]; }; then
	names=
	for dir in "$here"/*/; do
		[ ! -f "$dir/varved.toml" ] || names="$names $(basename "$dir")"
	done
	fail "--board ${board:-is needed where there is no $config}: the boards are$names"
fi

# User and group.
has_line() {
	grep -q "^$1:" "$root$2" 2>/dev/null
}

# A number that neither a user nor a group has.
free_id() {
	id=999
	while grep -q "^[^:]*:[^:]*:$id:" "$root/etc/passwd" "$root/etc/group" 2>/dev/null; do
		id=$((id - 1))
		[ "$id" -gt 100 ] || fail "no number below 1000 is free for the user varved; make user and group by hand"
	done
	echo "$id"
}

# Straight into the files: an image's, or those of a system without any tool for it.
write_account() {
	id=$(free_id)
	has_line varved /etc/group || echo "varved:x:$id:" >>"$root/etc/group"
	gid=$(sed -n 's/^varved:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")
	has_line varved /etc/passwd || echo "varved:x:$id:$gid:varved:$state:/bin/false" >>"$root/etc/passwd"
	if [ -f "$root/etc/shadow" ]; then
		has_line varved /etc/shadow || echo "varved:!:0:0:99999:7:::" >>"$root/etc/shadow"
	fi
}

make_account() {
	if has_line varved /etc/passwd && has_line varved /etc/group; then
		return
	fi
	if [ -z "$root" ] && command -v useradd >/dev/null; then
		has_line varved /etc/group || groupadd --system varved
		useradd --system --gid varved --home-dir "$state" --no-create-home --shell /bin/false varved
	elif [ -z "$root" ] && command -v adduser >/dev/null && command -v addgroup >/dev/null; then
		has_line varved /etc/group || addgroup -S varved
		adduser -S -D -H -h "$state" -s /bin/false -G varved varved
	elif [ -f "$root/etc/passwd" ] && [ -f "$root/etc/group" ]; then
		write_account
	else
		say "note: $root has no etc/passwd and etc/group: its first boot must make the user varved (sysusers.d does)"
	fi
}

# folder MODE OWNER PATH; by number, since an image's users are not this machine's.
folder() {
	mkdir -p "$root$3"
	chmod "$1" "$root$3"
	ids=0:0
	if [ "$2" = varved ]; then
		ids=$(sed -n 's/^varved:[^:]*:\([0-9]*\):\([0-9]*\):.*/\1:\2/p' "$root/etc/passwd" 2>/dev/null || :)
		[ -n "$ids" ] || return 0
	fi
	chown "$ids" "$root$3" 2>/dev/null || say "note: not root, so $root$3 must still be given to $2 ($ids)"
}

make_account
folder 755 root /etc/varved
folder 750 varved "$state"
put 755 "$binary" "$prefix/bin/varved"

# The configuration, which is never written over.
if [ -n "$profile" ]; then
	fresh=$root$config.part
	sed "s,^path = \"/var/lib/varved/,path = \"$state/," "$profile" >"$fresh"
	chmod 644 "$fresh"
	if [ ! -e "$root$config" ]; then
		mv "$fresh" "$root$config"
		say "$config is the profile of $board: set device and sensors in it"
	elif cmp -s "$fresh" "$root$config"; then
		rm -f "$fresh"
	else
		mv -f "$fresh" "$root$config.new"
		say "$config is kept; the profile of $board lies beside it as varved.toml.new"
	fi
fi

# udev, where there is one.
if [ -d "$root/lib/udev" ] || [ -d "$root/usr/lib/udev" ]; then
	put 644 "$here/udev/60-varved.rules" "$rules"
	[ -n "$root" ] || ! command -v udevadm >/dev/null || udevadm control --reload >/dev/null 2>&1 || :
fi

case $init in
	systemd)
		put_script 644 "$here/init/varved.service" "$units/varved.service"
		put_script 644 "$here/init/varved-power-fail.service" "$units/varved-power-fail.service"
		put 644 "$here/init/varved.sysusers" "$sysusers/varved.conf"
		put 644 "$here/init/varved.tmpfiles" "$tmpfiles/varved.conf"
		if [ -z "$root" ]; then
			systemctl daemon-reload
			systemctl try-restart varved.service
		fi
		next="systemctl enable --now varved"
		;;
	procd)
		put_script 755 "$here/init/varved.procd" "$script"
		next="$script enable && $script start"
		;;
	sysv)
		put_script 755 "$here/init/varved.sysv" "$script"
		next="$script start"
		if [ -z "$root" ] && command -v update-rc.d >/dev/null; then
			update-rc.d varved defaults >/dev/null
		fi
		;;
	none) next="$prefix/bin/varved run --config $config, by whatever keeps programs running here" ;;
esac

if [ -z "$root" ]; then
	"$prefix/bin/varved" check --config "$config" >/dev/null || say "note: $config is not right yet, see above"
fi
say "done (init: $init). Next: $prefix/bin/varved check --config $config; then $next"
