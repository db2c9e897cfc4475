include $(sort $(wildcard $(BR2_EXTERNAL_VARVED_PATH)/package/*/*.mk))
