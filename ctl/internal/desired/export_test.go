package desired

import "cmp"

// Bounds are a field's, for who holds them against the API's.
type Bounds struct {
	Min, Max int64
	Items    int64
	Words    []string
}

// Schemas returns the fields that are sent to the API, by the names of its schemas.
func Schemas() map[string]map[string]Bounds {
	all := make(map[string]map[string]Bounds)
	for schema, fields := range map[string]map[string]field{
		"NewRegion": fieldsOf[Region], "RegionChange": fieldsOf[Region], "NewPlan": fieldsOf[Plan], "PlanChange": fieldsOf[Plan],
		"NewOutlineServer": fieldsOf[OutlineServer], "OutlineServerChange": fieldsOf[OutlineServer], "NewUser": fieldsOf[User], "UserChange": fieldsOf[User],
		"LimitsChange": limitFields,
	} {
		all[schema] = make(map[string]Bounds)
		for name, f := range fields {
			switch name { // these say something else than a field of the object
			case "access_key_file", "access_key_env", "access_key", "plan", "ends_at", "limits":
			default:
				all[schema][name] = Bounds{f.min, f.max, cmp.Or(f.items, f.max), f.words}
			}
		}
	}
	return all
}
