"""The calls of assets and playback ids, and `whoami`: paths and codes of mux.com/api-spec.json."""

from typing import Literal

from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.mux.api.calls import Call, Reply, Route, data, found, page
from broadcast_sandbox.mux.api.fields import invalid
from broadcast_sandbox.mux.api.rules import created_asset, playback_id
from broadcast_sandbox.mux.assets import MuxAssets
from broadcast_sandbox.mux.model import Asset, LiveStream, PlaybackId
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.mux.store import MuxStore
from broadcast_sandbox.mux.uploads import MuxUploads


class AssetCalls:
    def __init__(
        self,
        settings: MuxSimulatorSettings,
        store: MuxStore,
        assets: MuxAssets,
        uploads: MuxUploads,
        effects: EffectLog,
    ) -> None:
        self._settings = settings
        self._store = store
        self._assets = assets
        self._uploads = uploads
        self._effects = effects

    def routes(self) -> list[Route]:
        assets, asset = "/video/v1/assets", "/video/v1/assets/{id}"
        return [
            Route("POST", assets, "create_asset", self._create_asset),
            Route("GET", assets, "list_assets", self._list_assets),
            Route("GET", asset, "get_asset", self._get_asset),
            Route("DELETE", asset, "delete_asset", self._delete_asset),
            *self._playback_routes(asset, "asset"),
            *self._playback_routes("/video/v1/live-streams/{id}", "live_stream"),
            Route("GET", "/video/v1/playback-ids/{id}", "get_asset_or_livestream_id", self._resolve_playback_id),
            Route("GET", "/system/v1/whoami", "whoami", self._whoami),
        ]

    def _create_asset(self, call: Call) -> Reply:
        url, asset = created_asset(call.body)
        self._uploads.begin(asset, url)
        return data(asset.as_json(), 201)

    def _list_assets(self, call: Call) -> Reply:
        first, limit = page(call)
        owner, cursor = call.query.get("live_stream_id"), call.query.get("cursor")
        matching = [asset for asset in reversed(self._store.assets.values()) if owner in (None, asset.live_stream_id)]
        if cursor is not None:
            first = next((index + 1 for index, asset in enumerate(matching) if asset.id == cursor), -1)
            if first == -1:
                raise invalid("cursor is invalid")
        shown = matching[first : first + limit]
        following = shown[-1].id if first + limit < len(matching) else None
        return Reply(body={"data": [asset.as_json() for asset in shown], "next_cursor": following})

    def _get_asset(self, call: Call) -> Reply:
        return data(self._asset(call).as_json())

    def _delete_asset(self, call: Call) -> Reply:
        self._assets.delete(self._asset(call))
        return Reply(status=204)

    def _resolve_playback_id(self, call: Call) -> Reply:
        playable = found(self._store.playables.get(call.path["id"]))
        owner = {"type": playable.type, "id": playable.owner_id}
        return data({"id": playable.playback_id.id, "policy": playable.playback_id.policy, "object": owner})

    def _whoami(self, _: Call) -> Reply:
        return data(
            {
                "permissions": ["video:read", "video:write", "data:read", "system:read", "system:write"],
                "organization_name": "Sandbox",
                "organization_id": "sbxorg",
                "environment_type": "development",
                "environment_name": self._settings.environment_name,
                "environment_id": self._settings.environment_id,
                "access_token_name": "sandbox",
            }
        )

    def _playback_routes(self, owner_path: str, type_: Literal["live_stream", "asset"]) -> list[Route]:
        def owner(call: Call) -> LiveStream | Asset:
            held = self._store.streams if type_ == "live_stream" else self._store.assets
            return found(held.get(call.path["id"]))

        def one_of(of: LiveStream | Asset, call: Call) -> PlaybackId:
            return found(next((one for one in of.playback_ids if one.id == call.path["sub"]), None))

        def effect(kind: str, of: LiveStream | Asset, one: PlaybackId) -> None:
            self._effects.append(f"playback_id.{kind}", of.id, playback_id=one.id, policy=one.policy)

        def create(call: Call) -> Reply:
            of = owner(call)
            one = playback_id(call.body)
            of.playback_ids.append(one)
            self._store.add_playable(one, type_, of.id)
            effect("created", of, one)
            return data(one.as_json(), 201)

        def get(call: Call) -> Reply:
            return data(one_of(owner(call), call).as_json())

        def delete(call: Call) -> Reply:
            of = owner(call)
            one = one_of(of, call)
            of.playback_ids.remove(one)
            self._store.playables.pop(one.id, None)
            effect("deleted", of, one)
            return Reply(status=204)

        all_ids, one_id = f"{owner_path}/playback-ids", f"{owner_path}/playback-ids/{{sub}}"
        return [
            Route("POST", all_ids, f"create_{type_}_playback_id", create),
            Route("GET", one_id, f"get_{type_}_playback_id", get),
            Route("DELETE", one_id, f"delete_{type_}_playback_id", delete),
        ]

    def _asset(self, call: Call) -> Asset:
        return found(self._store.assets.get(call.path["id"]))
