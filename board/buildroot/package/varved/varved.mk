################################################################################
#
# varved
#
################################################################################

VARVED_SITE = $(call qstrip,$(BR2_PACKAGE_VARVED_SITE))
ifeq ($(filter /%,$(VARVED_SITE)),)
VARVED_SITE_METHOD = git
VARVED_VERSION = $(call qstrip,$(BR2_PACKAGE_VARVED_VERSION))
else
VARVED_SITE_METHOD = local
VARVED_VERSION = local
# What other builds have left there is not copied.
VARVED_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude target
endif

VARVED_LICENSE = MIT or Apache-2.0
VARVED_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE

VARVED_FEATURES = device
ifeq ($(BR2_PACKAGE_VARVED_TLS),y)
VARVED_FEATURES += tls
endif

# As .cargo/config.toml has it. That file is lost where Buildroot vendors the
# crates: it writes its own in its place.
VARVED_SQLITE_FLAGS = \
	-DHAVE_FDATASYNC=1 \
	-DSQLITE_ENABLE_DBPAGE_VTAB=1 \
	-DSQLITE_DEFAULT_MEMSTATUS=0 \
	-USQLITE_ENABLE_FTS3 \
	-USQLITE_ENABLE_FTS3_PARENTHESIS \
	-USQLITE_ENABLE_FTS5 \
	-USQLITE_ENABLE_RTREE \
	-USQLITE_ENABLE_STAT4 \
	-USQLITE_ENABLE_LOAD_EXTENSION \
	-DSQLITE_OMIT_LOAD_EXTENSION=1 \
	-DSQLITE_OMIT_SHARED_CACHE=1

VARVED_CARGO_ENV = LIBSQLITE3_FLAGS="$(VARVED_SQLITE_FLAGS)"

VARVED_CARGO_OPTS = \
	--no-default-features \
	--features $(subst $(space),$(comma),$(strip $(VARVED_FEATURES)))

# Sources in a folder come without their crates, which Buildroot only brings
# along with what it downloads.
ifeq ($(VARVED_SITE_METHOD),local)
define VARVED_FETCH_CRATES
	cd $(@D) && \
	$(TARGET_MAKE_ENV) $(PKG_CARGO_ENV) cargo fetch --locked
endef
VARVED_PRE_BUILD_HOOKS += VARVED_FETCH_CRATES
endif

# Not the infrastructure's: it says --release, which excludes any --profile.
define VARVED_BUILD_CMDS
	cd $(@D) && \
	$(TARGET_MAKE_ENV) $(TARGET_CONFIGURE_OPTS) \
		$(PKG_CARGO_ENV) $(VARVED_CARGO_ENV) \
		cargo build \
			--offline \
			--locked \
			--profile board \
			--bin varved \
			$(VARVED_CARGO_OPTS)
endef

define VARVED_INSTALL_PROFILE
	$(if $(call qstrip,$(BR2_PACKAGE_VARVED_PROFILE)),
		$(INSTALL) -D -m 0644 $(call qstrip,$(BR2_PACKAGE_VARVED_PROFILE)) \
			$(TARGET_DIR)/etc/varved/varved.toml)
endef

define VARVED_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 \
		$(@D)/target/$(RUSTC_TARGET_NAME)/board/varved \
		$(TARGET_DIR)/usr/bin/varved
	$(INSTALL) -D -m 0644 $(@D)/board/udev/60-varved.rules \
		$(TARGET_DIR)/usr/lib/udev/rules.d/60-varved.rules
	$(VARVED_INSTALL_PROFILE)
endef

define VARVED_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(VARVED_PKGDIR)/varved.service \
		$(TARGET_DIR)/usr/lib/systemd/system/varved.service
	$(INSTALL) -D -m 0644 $(@D)/board/init/varved.tmpfiles \
		$(TARGET_DIR)/usr/lib/tmpfiles.d/varved.conf
endef

define VARVED_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(VARVED_PKGDIR)/S60varved \
		$(TARGET_DIR)/etc/init.d/S60varved
endef

define VARVED_USERS
	varved -1 varved -1 * /var/lib/varved - - varved, sensor readings
endef

# The user owns the folder of the store from the first boot on.
define VARVED_PERMISSIONS
	/var/lib/varved d 0750 varved varved - - - - -
endef

$(eval $(cargo-package))
