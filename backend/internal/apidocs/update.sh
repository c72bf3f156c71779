#!/usr/bin/env bash
# Puts a version of Swagger UI in the place of the one that is embedded. Review
# what "git diff" says of SHA256SUMS, and look at the page.
#
#   backend/internal/apidocs/update.sh 5.35.0
set -euo pipefail
cd "$(dirname "$0")"
version=$1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# npm compares the package with the checksum that the registry has for it.
package=$(cd "$work" && npm pack --silent "swagger-ui-dist@$version")
tar -xzf "$work/$package" -C "$work"
for file in swagger-ui-bundle.js swagger-ui.css; do
	gzip -9nc "$work/package/$file" >"swagger-ui/$file.gz"
done
cp "$work/package/LICENSE" "$work/package/NOTICE" "$work/package/swagger-ui-bundle.js.LICENSE.txt" swagger-ui/
(cd "$work/package" && sha256sum swagger-ui-bundle.js swagger-ui.css LICENSE NOTICE) >swagger-ui/SHA256SUMS
sed -i "s/^const Version = .*/const Version = \"$version\"/" apidocs.go
