package cli

import (
	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

var findDevice = byID("device", "device list", isUUID)

var devices = kind[api.Device]{
	name: "device", arg: "ID", things: (*api.Client).Devices, find: findDevice,
	columns: []column[api.Device]{
		{"ID", func(d api.Device) string { return d.ID }},
		{"USER", func(d api.Device) string { return d.UserID }},
		{"NAME", func(d api.Device) string { return d.Name }},
		{"PLATFORM", func(d api.Device) string { return d.Platform }},
		{"SEEN", func(d api.Device) string { return atOr(d.LastSeen, "never") }},
		{"REVOKED", func(d api.Device) string { return atOr(d.RevokedAt, "no") }},
	},
	names: map[string]lookup{"USER": userName},
	details: []column[api.Device]{
		{"CREATED", func(d api.Device) string { return at(d.CreatedAt) }},
	},
}

func (a *app) deviceCommand() *cobra.Command {
	return a.noun("device", "Enrolled devices (a new one enrols with an invitation: user invite)",
		listCommand(a, devices, searched, filterBy("user", "only those of this `USER` (id or name)", "user_id", findUser)),
		showCommand(a, devices), a.deviceUpdate(), a.deviceRevoke())
}

func (a *app) deviceUpdate() *cobra.Command {
	var name string
	cmd := &cobra.Command{Use: "update ID", Short: "Rename a device", Args: exactly(1)}
	cmd.Flags().StringVar(&name, "name", "", "the new name")
	cmd.RunE = updating(a, devices, func(cmd *cobra.Command, _ *api.Client) (map[string]any, error) {
		return changed(cmd, map[string]any{"name": name}), nil
	})
	return cmd
}

func (a *app) deviceRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Refuse a device for good and end its sessions", Args: exactly(1),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := findDevice(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			device, err := c.RevokeDevice(cmd.Context(), id)
			if err != nil {
				return err
			}
			return devices.print(a, cmd, c, device)
		}),
	}
}
