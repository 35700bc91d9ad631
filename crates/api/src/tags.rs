//! Operations on tags and resource groups.

use dunlin_control::{Paging, ResourceGroupInput, TagFilter, TagInput, UntagInput};
use dunlin_runtime::Body;
use http::Response;
use serde_json::{Value, json};

use crate::api::{Api, Asked, json as answer, nothing};
use crate::error::ApiError;
use crate::json::read_body;
use crate::wire;

impl Api {
    pub(crate) async fn tag_resources(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: TagInput = read_body(&asked.body.bytes)?;
        self.inner.control.tag_resources(&asked.verified.scope, input).await?;
        Ok(nothing())
    }

    pub(crate) async fn untag_resources(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let query = &asked.query;
        let input = UntagInput {
            resource_id: query.list("ResourceId")?,
            resource_type: query.owned("ResourceType"),
            tag_key: query.list("TagKey")?,
            all: query.flag("All")?,
        };
        self.inner.control.untag_resources(&asked.verified.scope, input).await?;
        Ok(nothing())
    }

    pub(crate) fn list_tag_resources(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let query = &asked.query;
        let filter = TagFilter {
            resource_id: query.list("ResourceId")?,
            resource_type: query.owned("ResourceType"),
            tags: query.list("Tag")?.unwrap_or_default(),
        };
        // This operation capitalises its parameters.
        let paging = Paging { prefix: None, limit: query.integer("Limit")?, next_token: query.owned("NextToken") };
        let (functions, next) = self.inner.control.list_tagged(&asked.verified.scope, &filter, &paging)?;
        let mut resources: Vec<Value> = Vec::new();
        for function in functions {
            let config = &function.value.config;
            let arn = wire::arn(self.inner.control.region(), &asked.verified.scope, &config.function_name);
            resources.extend(
                config.tags.iter().flatten().map(
                    |tag| json!({ "ResourceId": arn, "ResourceType": "function", "TagKey": tag.key, "TagValue": tag.value }),
                ),
            );
        }
        let mut members = json!({ "RequestId": asked.request_id, "TagResources": resources });
        if let Some(next) = next {
            members["NextToken"] = next.into();
        }
        Ok(answer(&members))
    }

    pub(crate) async fn change_resource_group(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: ResourceGroupInput = read_body(&asked.body.bytes)?;
        let before = self.inner.control.change_resource_group(&asked.verified.scope, &input).await?;
        let mut members = json!({ "ResourceId": input.resource_id, "NewResourceGroupId": input.new_resource_group_id });
        if let Some(before) = before {
            members["OldResourceGroupId"] = before.into();
        }
        Ok(answer(&members))
    }
}
